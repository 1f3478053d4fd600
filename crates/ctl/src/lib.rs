//! The operator's commands and their rendering
