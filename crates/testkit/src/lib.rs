//! Scratch PostgreSQL servers, stores and agents for tests; never a normal dependency
