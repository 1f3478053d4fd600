//! How values are read, printed, compared and merged (`configuration.md` §0).
//!
//! Patroni is written in Python, and what it prints and compares is Python's text of a value: `true` is
//! `True` in a file and on a command line. Everything of that kind is here.

mod merge;
mod number;
mod text;
mod unit;

pub use merge::{patch, same};
pub use number::{parse_bool, parse_int, parse_int_in, parse_real, parse_real_in, same_setting};
pub use text::{python_float, python_repr, python_str, truthy};
pub use unit::{format_integer, format_real};
