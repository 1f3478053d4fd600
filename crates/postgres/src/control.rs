use indexmap::IndexMap;
use primacy_model::ControlData;
use tokio::time::Instant;

use crate::{Error, Server};

/// What pg_controldata printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// As decisions need it.
    pub data: ControlData,
    /// Every line: label (without a leading `Current `) and value.
    pub fields: IndexMap<String, String>,
}

/// Reads the text that pg_controldata prints in the C locale; `None` when it has no cluster state.
pub fn parse_controldata(text: &str) -> Option<ControlFile> {
    let _ = text;
    todo!()
}

impl Server {
    /// Runs pg_controldata.
    pub async fn control_file(&self, deadline: Instant) -> Result<ControlFile, Error> {
        let _ = deadline;
        todo!()
    }
}
