use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use primacy_model::{Observation, Process};
use primacy_postgres::{
    Conninfo, Credentials, LocalAddress, ObserveOptions, RecoveryTarget, ReplicaRequest, Secret,
    Server, Settings, StartRequest, Started, StopMode, StopRequest, Until, kill_leftovers,
};
use primacy_testkit::ports;
use primacy_testkit::processes::MARK;
use primacy_testkit::programs::postgresql_bin_dir;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

/// Generous: the machine may be busy.
pub(crate) const LONG: Duration = Duration::from_secs(120);

pub(crate) fn soon() -> Instant {
    Instant::now() + LONG
}

pub(crate) fn until() -> Until {
    Until::deadline(soon())
}

/// Runs the test `name` once more in a scratch directory, which ends whatever the test started also when the test is
/// interrupted, as `postgres` when this is root. `true`: it is done.
pub(crate) fn done_in_scratch(name: &str) -> bool {
    if std::env::var_os(MARK).is_some() {
        return false;
    }
    let scratch = primacy_testkit::Scratch::new().unwrap();
    // The target directory may be where only root comes: a checkout below /root, a private clone.
    let executable = scratch.path().join("server");
    std::fs::copy(std::env::current_exe().unwrap(), &executable).unwrap();
    scratch.account().own(&executable).unwrap();
    let ours =
        std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PRIMACY_"));
    let status = scratch
        .command(&executable)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .envs(ours)
        // libpq looks for certificates there.
        .env("HOME", scratch.path())
        .status()
        .unwrap();
    assert!(
        status.success(),
        "{name} failed as {}",
        scratch.account().name()
    );
    true
}

/// A test that runs as an ordinary user, on one runtime.
#[macro_export]
macro_rules! server_test {
    ($module:ident, $name:ident, $body:block) => {
        #[test]
        fn $name() {
            if $crate::scratch::done_in_scratch(concat!(stringify!($module), "::", stringify!($name))) {
                return;
            }
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap()
                .block_on(async $body);
        }
    };
}

/// A directory for the servers of one test.
pub(crate) struct Scratch {
    pub(crate) directory: TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Scratch {
            directory: tempfile::Builder::new()
                .prefix("pg")
                .tempdir_in(std::env::var_os(MARK).unwrap_or("/tmp".into()))
                .unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A server that is configured, but does not exist yet.
    pub(crate) fn node(&self, name: &str) -> Node {
        let settings = self.settings(name);
        Node {
            data_dir: settings.data_dir.clone(),
            server: Server::new(settings),
        }
    }

    pub(crate) fn settings(&self, name: &str) -> Settings {
        let mut settings = Settings::new(name, "batman", self.path(name));
        settings.bin_dir = Some(postgresql_bin_dir().unwrap());
        settings.port = free_port();
        settings.local = LocalAddress::Unix(self.directory.path().to_path_buf());
        settings.local_replication = LocalAddress::Tcp("127.0.0.1".into());
        settings.superuser = credentials("boss", "it's:secret");
        settings.replication = credentials("rep", "rep\\pass");
        settings.rewind = Some(credentials("rewinder", "rewind"));
        settings.pgpass = self.path(&format!("{name}.pgpass"));
        settings.server_log = Some(self.path(&format!("{name}.log")));
        let directory = self.directory.path().display().to_string();
        let port = settings.port.to_string();
        for (parameter, value) in [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("cluster_name", "batman"),
            ("unix_socket_directories", &directory),
            ("fsync", "off"),
            ("wal_log_hints", "on"),
            ("max_connections", "50"),
            ("wal_keep_size", "64MB"),
        ] {
            settings.parameters.insert(parameter.into(), value.into());
        }
        settings.command_line = [
            "listen_addresses",
            "port",
            "cluster_name",
            "wal_log_hints",
            "max_connections",
        ]
        .map(|name| (name.to_owned(), settings.parameters[name].clone()))
        .to_vec();
        settings.pg_hba = [
            "local all all trust",
            "host replication rep 127.0.0.1/32 scram-sha-256",
            "host all all 127.0.0.1/32 scram-sha-256",
        ]
        .map(str::to_owned)
        .to_vec();
        settings
    }

    /// A new primary with its roles.
    pub(crate) async fn primary(&self, name: &str) -> Node {
        let node = self.node(name);
        node.server.initdb(&[], until()).await.unwrap();
        node.start(None).await;
        node.server.post_bootstrap(None, until()).await.unwrap();
        node
    }

    /// A standby, started and streaming.
    pub(crate) async fn standby(&self, name: &str, of: &Node) -> Node {
        let node = self.node(name);
        let request = ReplicaRequest {
            source: Some(of.conninfo()),
            ..ReplicaRequest::default()
        };
        assert_eq!(
            node.server.create_replica(request, until()).await.unwrap(),
            "basebackup"
        );
        node.start(Some(of)).await;
        node.until("streaming", |seen| {
            let receiver = seen.wal.as_ref().and_then(|wal| wal.receiver.as_ref());
            receiver.is_some_and(|receiver| receiver.status == "streaming")
        })
        .await;
        node
    }
}

fn credentials(username: &str, password: &str) -> Credentials {
    Credentials {
        username: Some(username.into()),
        password: Some(Secret::new(password)),
        ..Credentials::default()
    }
}

pub(crate) fn free_port() -> u16 {
    ports::free().unwrap()
}

/// A server; killed when dropped.
pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) data_dir: PathBuf,
}

impl Drop for Node {
    fn drop(&mut self) {
        kill_leftovers(&self.data_dir);
    }
}

impl Node {
    pub(crate) fn conninfo(&self) -> Conninfo {
        Conninfo::new("127.0.0.1", self.server.settings().port, "postgres")
    }

    pub(crate) fn target(&self) -> RecoveryTarget {
        RecoveryTarget {
            primary: Some(self.conninfo()),
            ..RecoveryTarget::default()
        }
    }

    pub(crate) async fn start(&self, upstream: Option<&Node>) -> Started {
        let recovery = upstream.map(Node::target);
        let request = StartRequest {
            recovery,
            timeout: Some(LONG),
            ..StartRequest::default()
        };
        self.server.start(request).await.unwrap()
    }

    pub(crate) async fn stop(&self, mode: StopMode) {
        let request = StopRequest {
            mode,
            checkpoint: false,
            timeout: Some(LONG),
            events: None,
        };
        assert_eq!(self.server.stop(request).await.unwrap().mode, Some(mode));
    }

    pub(crate) async fn observe(&self) -> Observation {
        self.server
            .observe(ObserveOptions { slots: true }, soon())
            .await
    }

    /// Waits until the server looks like that.
    pub(crate) async fn until(
        &self,
        what: &str,
        condition: impl Fn(&Observation) -> bool,
    ) -> Observation {
        let deadline = soon();
        loop {
            let seen = self.observe().await;
            if condition(&seen) {
                return seen;
            }
            assert!(
                Instant::now() < deadline,
                "{what} did not come; now: {seen:#?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn until_primary(&self) {
        self.until("the primary", |seen| {
            seen.wal.as_ref().is_some_and(|wal| wal.is_primary())
        })
        .await;
    }

    pub(crate) async fn pid(&self) -> i32 {
        match self.observe().await.process {
            Process::Running(identity) => identity.pid,
            other => panic!("not running: {other:?}"),
        }
    }

    /// A psql that runs statements, as the superuser.
    pub(crate) fn psql(&self, sql: &str) -> Command {
        let settings = self.server.settings();
        let mut command = Command::new(settings.binary("psql"));
        command
            .args([
                "-X",
                "-At",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "boss",
                "-d",
                "postgres",
                "-h",
            ])
            .arg(settings.local.host())
            .args(["-p", &settings.port.to_string(), "-c", sql]);
        command
    }

    /// Runs statements and returns what psql prints, or its error.
    pub(crate) fn try_sql(&self, sql: &str) -> Result<String, String> {
        let output = self.psql(sql).output().unwrap();
        if output.status.success() {
            Ok(String::from_utf8(output.stdout).unwrap().trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Runs statements and returns what psql prints.
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.try_sql(sql)
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}

/// Permissions of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}
