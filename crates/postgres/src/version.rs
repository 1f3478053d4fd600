use std::path::{Path, PathBuf};

use tokio::time::Instant;

use crate::command::Run;
use crate::{Error, Server, Until};

/// The oldest PostgreSQL that is managed.
pub const MIN_MAJOR: u32 = 12;
/// The newest PostgreSQL that is managed.
pub const MAX_MAJOR: u32 = 18;

impl Server {
    /// Major version of the installed binaries (`postgres --version`).
    ///
    /// Errors: [`Error::UnsupportedVersion`], or the binary is missing.
    pub async fn binaries_version(&self, deadline: Instant) -> Result<u32, Error> {
        let binary = self.settings().binary("postgres");
        let until = Until::deadline(deadline);
        let output = Run::new(&binary)
            .arg("--version")
            .c_locale()
            .quiet()
            .success(&until)
            .await?;
        supported(&output.stdout, binary)
    }

    /// Names of all parameters that the installed server knows (`postgres --describe-config`).
    pub async fn known_parameters(&self, deadline: Instant) -> Result<Vec<String>, Error> {
        let output = Run::new(self.settings().binary("postgres"))
            .arg("--describe-config")
            .c_locale()
            .quiet()
            .success(&Until::deadline(deadline))
            .await?;
        let names = output
            .stdout
            .lines()
            .filter_map(|line| line.split('\t').next());
        Ok(names.map(str::to_owned).collect())
    }

    /// Major version of the data directory (`PG_VERSION`), `None` when there is no cluster in it.
    pub async fn data_version(&self, deadline: Instant) -> Result<Option<u32>, Error> {
        let path = self.settings().data_dir.join("PG_VERSION");
        self.disk(
            "reading PG_VERSION",
            deadline,
            move || match std::fs::read_to_string(&path) {
                Ok(text) => supported(&text, path).map(Some),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(source) => Err(Error::file("read", path)(source)),
            },
        )
        .await
    }

    /// What would keep this process from managing the server: missing binaries, an unsupported version,
    /// running as root, no permission on the data directory. For the agent's start-up. Returns the major
    /// version of the binaries.
    pub async fn check(&self, deadline: Instant) -> Result<u32, Error> {
        self.refuse_root()?;
        let data = self.data_version(deadline).await?;
        let binaries = self.binaries_version(deadline).await?;
        let data_dir = self.settings().data_dir.clone();
        if let Some(data) = data.filter(|data| *data != binaries) {
            return Err(Error::Configuration(format!(
                "the data directory {} was made by PostgreSQL {data}, but the binaries are PostgreSQL \
                 {binaries}; set postgresql.bin_dir to those of {data}",
                data_dir.display()
            )));
        }
        self.disk("checking the data directory", deadline, move || {
            writable(&data_dir)
        })
        .await?;
        Ok(binaries)
    }

    pub(crate) fn refuse_root(&self) -> Result<(), Error> {
        if rustix::process::geteuid().is_root() {
            return Err(Error::RunningAsRoot {
                data_dir: self.settings().data_dir.clone(),
            });
        }
        Ok(())
    }
}

/// Whether the data directory can be written, or made where it is missing.
fn writable(data_dir: &Path) -> Result<(), Error> {
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    for directory in data_dir.ancestors() {
        match rustix::fs::access(directory, access) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(Error::file("write", data_dir)(error.into())),
        }
    }
    Ok(())
}

fn supported(text: &str, place: PathBuf) -> Result<u32, Error> {
    match parse_major(text) {
        Some(major @ MIN_MAJOR..=MAX_MAJOR) => Ok(major),
        _ => {
            let found = text.trim().rsplit(") ").next().unwrap_or_default();
            let found = found
                .split_whitespace()
                .next()
                .unwrap_or("of an unknown version");
            Err(Error::UnsupportedVersion {
                found: found.into(),
                place,
            })
        }
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0)`, `15`, `9.6`, `19devel`, `18beta1`.
pub(crate) fn parse_major(text: &str) -> Option<u32> {
    let number = text
        .trim()
        .rsplit_once("(PostgreSQL) ")
        .map_or(text.trim(), |(_, rest)| rest);
    let digits: &str = number.split(|char: char| !char.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, major) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                Some(15),
            ),
            ("postgres (PostgreSQL) 18beta1\n", Some(18)),
            ("9.6\n", Some(9)),
            ("17", Some(17)),
            ("", None),
        ] {
            assert_eq!(parse_major(text), major, "{text:?}");
        }
    }

    #[test]
    fn older_ones_are_refused_clearly() {
        let error = supported(
            "postgres (PostgreSQL) 11.22\n",
            "/usr/lib/postgresql/11/bin/postgres".into(),
        );
        assert_eq!(
            error.unwrap_err().to_string(),
            "PostgreSQL 11.22 in /usr/lib/postgresql/11/bin/postgres is not supported; \
             Primacy manages 12 to 18"
        );
        assert!(supported("19devel", "x".into()).is_err());
        assert!(supported("nonsense", "x".into()).is_err());
    }
}
