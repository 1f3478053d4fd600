//! What the demo needs before it starts: PostgreSQL's programs, an unprivileged user, free ports, a directory,
//! and a configuration for each member.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::unistd::{Gid, Uid, User, geteuid};
use rand::Rng;

/// How the temporary directory's name begins.
pub(crate) const DIRECTORY_PREFIX: &str = "primacy-demo-";
/// How many members the cluster has.
pub(crate) const MEMBERS: usize = 3;
/// Users that the demo runs as when it is started as root, the best first.
const UNPRIVILEGED: [&str; 2] = ["postgres", "nobody"];
/// Programs that an agent runs.
const PROGRAMS: [&str; 6] = [
    "postgres",
    "initdb",
    "pg_basebackup",
    "pg_rewind",
    "pg_controldata",
    "pg_isready",
];

/// Who the agents and servers run as, when that is not who started the demo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    pub(crate) uid: Uid,
    pub(crate) gid: Gid,
}

/// Where the members of the demo are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    /// Of the agent's files; the data directory is `data` in it.
    pub(crate) dir: PathBuf,
    pub(crate) rest: SocketAddr,
    pub(crate) postgres: SocketAddr,
    raft: SocketAddr,
}

impl Place {
    pub(crate) fn config(&self) -> PathBuf {
        self.dir.join("agent.yml")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("agent.log")
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }
}

/// Everything that is there before the first process starts.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) account: Option<Account>,
    pub(crate) executable: PathBuf,
    pub(crate) directory: PathBuf,
    pub(crate) members: Vec<Place>,
    /// Of the superuser of all three servers.
    pub(crate) password: String,
}

/// The data directories under the demo's directory.
pub(crate) fn data_directories(directory: &Path) -> impl Iterator<Item = PathBuf> {
    (0..MEMBERS).map(move |index| directory.join(member_name(index)).join("data"))
}

fn member_name(index: usize) -> String {
    format!("pg{}", index + 1)
}

/// Makes the empty directory, for the user who runs the demo alone.
pub(crate) fn create_directory() -> anyhow::Result<PathBuf> {
    let mut parent = std::env::temp_dir();
    if geteuid().is_root() && !is_reached_by_others(&parent) {
        parent = PathBuf::from("/tmp");
    }
    let directory = tempfile::Builder::new()
        .prefix(DIRECTORY_PREFIX)
        .tempdir_in(&parent)
        .with_context(|| format!("cannot create a directory in {}", parent.display()))?
        .keep();
    directory
        .canonicalize()
        .with_context(|| format!("cannot follow {}", directory.display()))
}

/// Whether other users may pass through the directory and all above it. Root's own temporary directory is
/// often closed to them, and the members do not run as root.
fn is_reached_by_others(directory: &Path) -> bool {
    directory.ancestors().all(|dir| {
        fs::metadata(dir).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    })
}

impl Setup {
    /// Fills `directory` with what the members need.
    pub(crate) fn new(directory: PathBuf, bin_dir: &Path) -> anyhow::Result<Self> {
        let account = unprivileged_account()?;
        let own = std::env::current_exe().context("the path of this executable is unknown")?;
        let executable = match account {
            None => own,
            // Whoever builds in /root has an executable that no other user reaches.
            Some(_) => {
                let copy = directory.join("primacy");
                fs::copy(&own, &copy).with_context(|| {
                    format!("cannot copy {} to {}", own.display(), copy.display())
                })?;
                fs::set_permissions(&copy, fs::Permissions::from_mode(0o755))?;
                copy
            }
        };
        give(&directory, account)?;

        let ports = free_ports(3 * MEMBERS)?;
        let members: Vec<Place> = (0..MEMBERS)
            .map(|index| {
                let address =
                    |kind: usize| SocketAddr::from((Ipv4Addr::LOCALHOST, ports[3 * index + kind]));
                Place {
                    name: member_name(index),
                    dir: directory.join(member_name(index)),
                    rest: address(0),
                    postgres: address(1),
                    raft: address(2),
                }
            })
            .collect();
        let setup = Setup {
            account,
            executable,
            directory,
            members,
            password: random_password(),
        };
        let raft_password = random_password();
        let replication_password = random_password();
        for member in &setup.members {
            fs::create_dir(&member.dir)
                .with_context(|| format!("cannot create {}", member.dir.display()))?;
            give(&member.dir, account)?;
            let text = setup.config(member, bin_dir, &raft_password, &replication_password);
            write_private(&member.config(), &text, account)?;
        }
        Ok(setup)
    }

    /// The agent's configuration.
    ///
    /// `ttl`, `loop_wait` and `retry_timeout` are about as short as they may be (`loop_wait + 2 *
    /// retry_timeout <= ttl`), and `primary_start_timeout: 0` hands over instead of waiting for a crashed
    /// primary to recover, so that faults show within seconds. `wal_retrieve_retry_interval` is for how
    /// long a promotion may have to wait: a standby that has just lost its primary notices it only after
    /// that long, if a reload came right before.
    fn config(
        &self,
        member: &Place,
        bin_dir: &Path,
        raft_password: &str,
        replication_password: &str,
    ) -> String {
        let partners: Vec<String> = self
            .members
            .iter()
            .filter(|other| other.name != member.name)
            .map(|other| other.raft.to_string())
            .collect();
        let path = |path: PathBuf| quoted(&path.display().to_string());
        format!(
            "\
scope: demo
name: {name}
restapi:
  listen: {rest}
  connect_address: {rest}
raft:
  self_addr: {raft}
  partner_addrs: [{partners}]
  data_dir: {raft_dir}
  password: {raft_password}
bootstrap:
  dcs:
    ttl: 5
    loop_wait: 1
    retry_timeout: 2
    primary_start_timeout: 0
    maximum_lag_on_failover: 1048576
    synchronous_mode: true
    postgresql:
      use_pg_rewind: true
      parameters:
        max_connections: 30
        shared_buffers: 16MB
        wal_keep_size: 128MB
        wal_retrieve_retry_interval: 500ms
        fsync: 'on'
        dynamic_shared_memory_type: mmap
  initdb:
  - encoding: UTF8
  - locale: C
  - data-checksums
postgresql:
  listen: {postgres}
  connect_address: {postgres}
  data_dir: {data_dir}
  bin_dir: {bin_dir}
  pgpass: {pgpass}
  authentication:
    superuser:
      username: postgres
      password: {password}
    replication:
      username: replicator
      password: {replication_password}
  basebackup:
  - checkpoint: fast
  pg_hba:
  - host all all 127.0.0.1/32 scram-sha-256
  - host replication replicator 127.0.0.1/32 scram-sha-256
  parameters:
    unix_socket_directories: ''
    password_encryption: scram-sha-256
    logging_collector: 'on'
    log_directory: {log_dir}
    log_filename: postgresql.log
",
            name = member.name,
            rest = member.rest,
            raft = member.raft,
            partners = partners.join(", "),
            raft_dir = path(member.dir.join("raft")),
            postgres = member.postgres,
            data_dir = path(member.data_dir()),
            bin_dir = path(bin_dir.to_owned()),
            pgpass = path(member.dir.join("pgpass")),
            log_dir = path(member.dir.join("postgresql-log")),
            password = self.password,
        )
    }
}

/// A YAML scalar in single quotes.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn random_password() -> String {
    format!("{:032x}", rand::rng().random::<u128>())
}

fn give(path: &Path, account: Option<Account>) -> anyhow::Result<()> {
    let Some(Account { uid, gid }) = account else {
        return Ok(());
    };
    chown(path, Some(uid.as_raw()), Some(gid.as_raw()))
        .with_context(|| format!("cannot give {} to user {uid}", path.display()))
}

fn write_private(path: &Path, text: &str, account: Option<Account>) -> anyhow::Result<()> {
    use std::io::Write;
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    give(path, account)
}

/// PostgreSQL refuses to run as root, and so do the agents.
fn unprivileged_account() -> anyhow::Result<Option<Account>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for name in UNPRIVILEGED {
        let user = User::from_name(name).context("cannot read the list of users")?;
        if let Some(User { uid, gid, .. }) = user.filter(|user| !user.uid.is_root()) {
            return Ok(Some(Account { uid, gid }));
        }
    }
    bail!(
        "PostgreSQL does not run as root, and none of the users {} exists; \
         start the demo as an ordinary user",
        UNPRIVILEGED.join(", ")
    )
}

/// Ports that nobody listens on. They are taken from below the range of outgoing connections: a member
/// that dials a dead partner's port would otherwise be given that very port for its own end some day, and
/// the partner could not come back.
fn free_ports(count: usize) -> anyhow::Result<Vec<u16>> {
    const FIRST: u16 = 12_000;
    const LAST: u16 = 32_000;
    let start = rand::rng().random_range(FIRST..LAST);
    // All are held until all are found, so that none is found twice.
    let listeners: Vec<TcpListener> = (start..LAST)
        .chain(FIRST..start)
        .filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .take(count)
        .collect();
    if listeners.len() < count {
        bail!("there are no {count} free ports between {FIRST} and {LAST} on 127.0.0.1");
    }
    listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}

/// The directory of PostgreSQL's programs: as asked, from `PATH`, or the newest that Debian installed.
pub(crate) fn find_bin_dir(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(dir) = asked {
        let Some(missing) = PROGRAMS.iter().find(|program| !dir.join(program).is_file()) else {
            return Ok(dir.canonicalize()?);
        };
        bail!(
            "{} has no program {missing}; --bin-dir takes the directory of PostgreSQL's server programs",
            dir.display()
        );
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    choose_bin_dir(std::env::split_paths(&path), Path::new("/usr/lib/postgresql")).context(
        "PostgreSQL's server programs (postgres, initdb, pg_basebackup, pg_rewind ...) are neither in PATH nor in \
         /usr/lib/postgresql/*/bin; install PostgreSQL (Debian: apt-get install postgresql), or say where \
         they are with --bin-dir",
    )
}

fn choose_bin_dir(path: impl Iterator<Item = PathBuf>, debian: &Path) -> Option<PathBuf> {
    let is_complete = |dir: &PathBuf| PROGRAMS.iter().all(|program| dir.join(program).is_file());
    path.filter(|dir| dir.is_absolute())
        .find(is_complete)
        .or_else(|| {
            fs::read_dir(debian)
                .ok()?
                .flatten()
                .filter_map(|entry| {
                    let version: u32 = entry.file_name().to_str()?.parse().ok()?;
                    Some((version, entry.path().join("bin")))
                })
                .filter(|(_, dir)| is_complete(dir))
                .max()
                .map(|(_, dir)| dir)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn install(dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        for program in PROGRAMS {
            fs::write(dir.join(program), "").unwrap();
        }
    }

    #[test]
    fn path_comes_first_then_the_newest_version() {
        let root = tempfile::tempdir().unwrap();
        let debian = root.path().join("postgresql");
        let none = || std::iter::empty();
        assert_eq!(choose_bin_dir(none(), &debian), None);
        for version in ["9.6", "9", "15", "17"] {
            install(&debian.join(version).join("bin"));
        }
        // Client programs alone are not enough.
        fs::create_dir_all(debian.join("18/bin")).unwrap();
        fs::write(debian.join("18/bin/pg_basebackup"), "").unwrap();
        let newest = debian.join("17/bin");
        assert_eq!(choose_bin_dir(none(), &debian), Some(newest));
        let local = root.path().join("local/bin");
        install(&local);
        let path = [
            PathBuf::from("relative"),
            debian.join("18/bin"),
            local.clone(),
        ];
        assert_eq!(choose_bin_dir(path.into_iter(), &debian), Some(local));
    }

    #[test]
    fn asked_directory_must_have_the_programs() {
        let root = tempfile::tempdir().unwrap();
        let error = find_bin_dir(Some(root.path())).unwrap_err().to_string();
        assert!(error.contains("has no program postgres"), "{error}");
        install(root.path());
        assert!(find_bin_dir(Some(root.path())).is_ok());
    }

    #[test]
    fn ports_are_free_and_apart() {
        let ports = free_ports(9).unwrap();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 9);
        for port in ports {
            assert!((12_000..32_000).contains(&port));
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn closed_directories_are_noticed() {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let open = directory.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!is_reached_by_others(&open));
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        assert!(is_reached_by_others(&open));
    }

    #[test]
    fn paths_stay_one_scalar() {
        assert_eq!(quoted("/tmp/o'neil: #1"), "'/tmp/o''neil: #1'");
    }
}
