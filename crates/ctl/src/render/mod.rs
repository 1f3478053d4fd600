//! How things are drawn. Everything here is pure: a cluster in, text out (`patronictl.md` §4, §5).

mod format;
mod history;
mod journal;
mod member_table;
mod result;
mod table;
mod topology;

pub use format::Format;
pub use history::history;
pub use journal::Story;
pub use member_table::{Style, View, member_table};
pub use result::write_result;
pub use table::{Align, Table};
