use primacy_config::ConfigError;
use primacy_dcs::StoreError;

/// Why a command ends before its end. The text of a refusal goes to stderr after `Error: `, and scripts
/// match on it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line cannot be understood: exit code 2, in the form that option parsers of Python use.
    #[error("{text}")]
    Usage {
        /// The command that was being read, `None` before one was recognised.
        command: Option<String>,
        /// What is wrong.
        text: String,
    },
    /// An option without its argument, or with one that it does not take: exit code 2, without the usage.
    #[error("{0}")]
    Option(String),
    /// The command will not, or could not, do it: exit code 1.
    #[error("{0}")]
    Refused(String),
    /// The input ended at a prompt, or the operator pressed Ctrl-C: exit code 1.
    #[error("Aborted!")]
    Aborted,
    /// Whoever read our output is gone: exit code 1, and nobody to tell.
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// A refusal in these words.
    pub fn refused(text: impl Into<String>) -> Self {
        Failure::Refused(text.into())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Refused(chain(&error))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Refused(chain(&error))
    }
}

/// The error and its causes on one line, without saying anything twice.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
