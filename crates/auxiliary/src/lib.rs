//! The programs that Patroni brings beside its agent, under their names and with their command lines and exit codes
//! (`configuration.md` §7.5): configurations name them as hooks, callbacks and replica methods.

mod aws;
mod barman;
mod log;
mod wale_restore;

use std::ffi::OsString;

use clap::Command;

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Restores from Barman, and switches its configuration, through `pg-backup-api`.
    Barman,
    /// Makes a replica from a backup of WAL-E's.
    WaleRestore,
    /// Tags an EC2 instance and its volumes.
    Aws,
}

impl Program {
    /// All of them.
    pub const ALL: [Program; 3] = [Program::Barman, Program::WaleRestore, Program::Aws];

    /// The name by which it is called.
    pub fn name(self) -> &'static str {
        match self {
            Program::Barman => "patroni_barman",
            Program::WaleRestore => "patroni_wale_restore",
            Program::Aws => "patroni_aws",
        }
    }

    /// The program of that name.
    pub fn of(name: &str) -> Option<Self> {
        Program::ALL
            .into_iter()
            .find(|program| program.name() == name)
    }

    /// Its command line.
    pub fn command(self) -> Command {
        let command = match self {
            Program::Barman => barman::command(),
            Program::WaleRestore => wale_restore::command(),
            Program::Aws => aws::command(),
        };
        command.name(self.name()).args_override_self(true)
    }

    /// Runs it; the arguments are without the program's own name. Gives the exit code.
    pub async fn run(self, arguments: Vec<OsString>) -> u8 {
        let arguments = match self {
            Program::Barman => barman::known(arguments),
            _ => arguments,
        };
        let name = std::iter::once(OsString::from(self.name()));
        let matches = match self.command().try_get_matches_from(name.chain(arguments)) {
            Ok(matches) => matches,
            Err(error) => {
                let _ = error.print();
                return match self {
                    Program::Aws if error.use_stderr() => 1,
                    _ => u8::try_from(error.exit_code()).unwrap_or(2),
                };
            }
        };
        match self {
            Program::Barman => barman::run(&matches).await,
            Program::WaleRestore => wale_restore::run(&matches).await,
            Program::Aws => aws::run(&matches).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_sound() {
        for program in Program::ALL {
            program.command().debug_assert();
            assert_eq!(Program::of(program.name()), Some(program));
        }
    }
}
