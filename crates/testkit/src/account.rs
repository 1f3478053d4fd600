//! The unprivileged account that servers and agents run as.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User, chown};

/// Whether the test itself runs as root.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Says in a run that is not root's that what only root can do is to be left out.
const WITHOUT_ROOT: &str = "PRIMACY_TEST_WITHOUT_ROOT";

/// Whether the test can do what only root can: make networks, mount disks. `false`: it is to be left out, as
/// `PRIMACY_TEST_WITHOUT_ROOT=1` asks.
///
/// # Errors
/// The test does not run as root, and nobody asked to leave anything out: nothing must look tested that is not.
pub fn may_act_as_root() -> Result<bool> {
    if is_root() {
        return Ok(true);
    }
    if std::env::var(WITHOUT_ROOT).is_ok_and(|wanted| wanted == "1") {
        println!("left out: only root can do this");
        return Ok(false);
    }
    bail!("only root can run this test; {WITHOUT_ROOT}=1 leaves it out")
}

/// Who the processes of a test run as: the test's own user, or `postgres` where the test runs as root, since
/// PostgreSQL refuses to.
#[derive(Debug, Clone)]
pub struct Account {
    user: User,
    switch: bool,
}

impl Account {
    /// # Errors
    /// As root: there is no user `postgres`.
    pub fn unprivileged() -> Result<Self> {
        if is_root() {
            let user = User::from_name("postgres")?
                .context("no user `postgres` to run servers as: install the postgresql packages (make setup)")?;
            Ok(Self { user, switch: true })
        } else {
            let user = User::from_uid(Uid::effective())?
                .context("the current user has no passwd entry")?;
            Ok(Self {
                user,
                switch: false,
            })
        }
    }

    pub fn name(&self) -> &str {
        &self.user.name
    }

    /// A command that will run as this account, with an environment of only `PATH`, `HOME`, `USER` and a locale, so
    /// that no `PG*` or `PATRONI_*` variable of the developer's gets in.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.set_environment(&mut command);
        if self.switch {
            command
                .uid(self.user.uid.as_raw())
                .gid(self.user.gid.as_raw());
        }
        command
    }

    /// The same in a network namespace. Its process is the program's from the start, as with [`Self::command`].
    pub fn command_in(&self, namespace: &Path, program: impl AsRef<OsStr>) -> Command {
        // Only root may enter a namespace, so the account is switched after that.
        let mut command = Command::new("nsenter");
        self.set_environment(&mut command);
        command
            .arg(format!("--net={}", namespace.display()))
            .arg(format!("--setuid={}", self.user.uid))
            .arg(format!("--setgid={}", self.user.gid))
            .arg("--")
            .arg(program);
        command
    }

    /// A command that runs as root in a network namespace.
    pub(crate) fn root_command_in(namespace: &Path, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .env_clear()
            .env("PATH", path())
            .env("LC_ALL", "C.UTF-8")
            .arg(format!("--net={}", namespace.display()))
            .arg("--")
            .arg(program);
        command
    }

    fn set_environment(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", path())
            .env("HOME", &self.user.dir)
            .env("USER", &self.user.name)
            .env("LC_ALL", "C.UTF-8");
    }

    /// Hands a file or directory over to this account.
    pub fn own(&self, path: &Path) -> Result<()> {
        chown(path, Some(self.user.uid), Some(self.user.gid))
            .with_context(|| format!("cannot hand {} over to {}", path.display(), self.user.name))
    }

    /// Creates a directory (and its parents) that belongs to this account, mode 0700.
    pub fn create_dir(&self, path: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        std::fs::create_dir_all(path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
        self.own(path)
    }

    /// Writes a file that belongs to this account.
    pub fn write(&self, path: &Path, text: &str) -> Result<()> {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        self.own(path)
    }
}

/// The test's own path, and where Debian has services, which is not in every user's path.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}
