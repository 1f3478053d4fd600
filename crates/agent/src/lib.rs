//! The daemon: a shell around the machine. It performs actions and reports what came of them; where it
//! would have to choose, the choice belongs into `primacy-ha`.

pub mod api;
pub mod logging;
pub mod peers;
pub mod published;
pub mod request;
