//! One local PostgreSQL server
