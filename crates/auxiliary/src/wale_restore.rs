//! `patroni_wale_restore`: makes a replica from the newest backup that WAL-E has, where that is faster than a copy of
//! the leader.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, value_parser};
use tokio::time::sleep;

use crate::log::Log;

/// It may be tried again.
const RETRY_LATER: u8 = 1;
/// Another method is needed.
const FAIL: u8 = 2;

const RETRY_SLEEP: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

pub(crate) fn command() -> Command {
    let option = |name: &'static str, help| {
        Arg::new(name)
            .long(name)
            .help(help)
            .allow_hyphen_values(true)
    };
    let number = |name, default, help| {
        option(name, help)
            .default_value(default)
            .value_parser(value_parser!(u64))
    };
    Command::new("wale-restore")
        .about("Make a replica from the newest backup of WAL-E's")
        .infer_long_args(true)
        .after_help("Exit status: 0 done, 1 it may be tried again, 2 another method is needed.")
        .arg(option("scope", "The cluster").required(true))
        .arg(option("role", "The member's role"))
        .arg(option("datadir", "The data directory to make").required(true))
        .arg(
            option(
                "connstring",
                "The leader; empty: use the backup in any case",
            )
            .required(true),
        )
        .arg(option("envdir", "Directory with WAL-E's environment").required(true))
        .arg(number("retries", "1", "How often to try again"))
        .arg(number(
            "threshold_megabytes",
            "10240",
            "Up to so much WAL since the backup it is used",
        ))
        .arg(number(
            "threshold_backup_size_percentage",
            "30",
            "Likewise, in percent of the backup's size",
        ))
        .arg(number(
            "use_iam",
            "0",
            "1: credentials come from the AWS instance profile",
        ))
        .arg(number(
            "no_leader",
            "0",
            "1: use the backup also when the leader does not answer",
        ))
}

pub(crate) async fn run(matches: &ArgMatches) -> u8 {
    let mut restore = Restore::new(matches);
    let mut code = restore.once().await;
    for _ in 0..restore.retries {
        if code != RETRY_LATER {
            break;
        }
        sleep(RETRY_SLEEP).await;
        code = restore.once().await;
    }
    code
}

struct Restore {
    data_dir: PathBuf,
    leader: String,
    env_dir: PathBuf,
    retries: u64,
    threshold_megabytes: u64,
    threshold_percentage: u64,
    use_iam: bool,
    no_leader: bool,
    log: Log,
}

/// The row that `wal-e backup-list --detail LATEST` prints.
#[derive(Debug, PartialEq, Eq)]
struct Backup {
    size: u64,
    /// Where its WAL begins, as PostgreSQL writes it.
    start: String,
}

impl Restore {
    fn new(matches: &ArgMatches) -> Self {
        let text = |name| matches.get_one::<String>(name).cloned().unwrap_or_default();
        let number = |name| matches.get_one::<u64>(name).copied().unwrap_or_default();
        Restore {
            data_dir: text("datadir").into(),
            leader: text("connstring"),
            env_dir: text("envdir").into(),
            retries: number("retries"),
            threshold_megabytes: number("threshold_megabytes"),
            threshold_percentage: number("threshold_backup_size_percentage"),
            use_iam: number("use_iam") == 1,
            no_leader: number("no_leader") != 0,
            log: Log::on_stderr(),
        }
    }

    async fn once(&mut self) -> u8 {
        if !self.env_dir.exists() {
            self.log.error(&format!(
                "{} does not exist: it should hold WAL-E's environment",
                self.env_dir.display()
            ));
            return FAIL;
        }
        let backup = match self.latest().await {
            Ok(backup) => backup,
            Err(code) => return code,
        };
        match self.distance(&backup).await {
            Some(distance) if self.is_worth_it(&backup, distance) => self.fetch().await,
            _ => FAIL,
        }
    }

    /// The newest backup, or the exit code.
    async fn latest(&mut self) -> Result<Backup, u8> {
        let output = match self
            .wal_e(&["backup-list", "--detail", "LATEST"])
            .output()
            .await
        {
            Ok(output) => output,
            Err(error) => {
                self.log
                    .error(&format!("cannot run envdir, which runs wal-e: {error}"));
                return Err(FAIL);
            }
        };
        if !output.status.success() {
            self.log.error(&format!(
                "wal-e cannot tell its latest backup: {}",
                complaint(&output)
            ));
            return Err(RETRY_LATER);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        match (lines.next(), lines.next()) {
            (Some(row), None) => parse(header, row).ok_or_else(|| {
                self.log
                    .error("wal-e does not tell the backup's size and where its WAL begins");
                RETRY_LATER
            }),
            (None, _) => {
                self.log.warning("wal-e did not find any backups");
                Err(FAIL)
            }
            (Some(_), Some(_)) => {
                self.log.warning("wal-e tells of more than one backup");
                Err(FAIL)
            }
        }
    }

    /// Bytes of WAL from the backup's start to the leader's end. `None`: the leader does not answer, and nobody
    /// allowed to go on without it.
    async fn distance(&mut self, backup: &Backup) -> Option<u64> {
        if self.leader.is_empty() {
            return Some(0);
        }
        let start = &backup.start;
        let sql = format!(
            "SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN GREATEST(\
             pg_catalog.pg_wal_lsn_diff(COALESCE(pg_catalog.pg_last_wal_receive_lsn(), '0/0'), '{start}'), \
             pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '{start}')) \
             ELSE pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), '{start}') END"
        );
        for attempt in 0..=self.retries {
            match self.ask_leader(&sql).await {
                Ok(distance) => return Some(distance),
                Err(problem) => self.log.error(&format!(
                    "the leader does not tell its WAL position: {problem}"
                )),
            }
            if attempt < self.retries {
                sleep(RETRY_SLEEP).await;
            }
        }
        if self.no_leader {
            self.log
                .info("going on with the backup, since the leader is not available");
            return Some(0);
        }
        None
    }

    /// Through psql, which takes the connection string and the password file that the agent hands over.
    async fn ask_leader(&self, sql: &str) -> Result<u64, String> {
        let mut psql = tokio::process::Command::new("psql");
        psql.args(["-X", "-A", "-t", "-q", "-w", "-d", &self.leader, "-c", sql])
            .stdin(Stdio::null());
        if std::env::var_os("PGCONNECT_TIMEOUT").is_none() {
            psql.env("PGCONNECT_TIMEOUT", "10");
        }
        let output = psql
            .kill_on_drop(true)
            .output()
            .await
            .map_err(|error| format!("cannot run psql: {error}"))?;
        if !output.status.success() {
            return Err(complaint(&output));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let bytes: i64 = text
            .trim()
            .parse()
            .map_err(|_| format!("psql prints {:?}", text.trim()))?;
        // A backup that is ahead of a leader is not far behind it.
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    fn is_worth_it(&mut self, backup: &Backup, distance: u64) -> bool {
        let by_size = self.threshold_megabytes.saturating_mul(MIB);
        let by_percentage =
            u64::try_from(u128::from(backup.size) * u128::from(self.threshold_percentage) / 100)
                .unwrap_or(u64::MAX);
        let is_worth_it = distance < by_size && distance < by_percentage;
        let figures = format!(
            "{distance} bytes of WAL since a backup of {} bytes; fewer than {by_size} and {by_percentage} are needed",
            backup.size
        );
        self.log.info(&match is_worth_it {
            true => format!("Thresholds are OK, using wal-e basebackup: {figures}"),
            false => format!(
                "the backup is too old, another method of making a replica is faster: {figures}"
            ),
        });
        is_worth_it
    }

    /// WAL-E's own exit code.
    async fn fetch(&mut self) -> u8 {
        let data_dir = self.data_dir.display().to_string();
        let mut fetch = self.wal_e(&["backup-fetch", &data_dir, "LATEST"]);
        fetch.stderr(Stdio::inherit());
        let status = match fetch.status().await {
            Ok(status) => status,
            Err(error) => {
                self.log
                    .error(&format!("cannot run envdir, which runs wal-e: {error}"));
                return RETRY_LATER;
            }
        };
        if !status.success() {
            self.log
                .error(&format!("wal-e did not fetch the backup: {status}"));
            return status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(RETRY_LATER);
        }
        if let Err(error) = ensure_directory(&self.data_dir.join("pg_wal")) {
            self.log
                .error(&format!("cannot make pg_wal in {data_dir}: {error}"));
            return FAIL;
        }
        0
    }

    fn wal_e(&self, arguments: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("envdir");
        command.arg(&self.env_dir).arg("wal-e");
        if self.use_iam {
            command.arg("--aws-instance-profile");
        }
        command
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }
}

/// What a program said last.
fn complaint(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().rfind(|line| !line.trim().is_empty());
    format!(
        "{} ({})",
        last.unwrap_or("it says nothing").trim(),
        output.status
    )
}

/// A backup may hold a link to where WAL was on another machine.
fn ensure_directory(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    if path.is_symlink() {
        std::fs::remove_file(path)?;
    }
    std::fs::create_dir(path)
}

/// Reads a row of tab-separated columns by their names.
fn parse(header: &str, row: &str) -> Option<Backup> {
    let cells: Vec<&str> = row.split('\t').collect();
    let cell = |name: &str| {
        let column = header
            .split('\t')
            .position(|column| column.trim() == name)?;
        cells.get(column).map(|cell| cell.trim().trim_matches('"'))
    };
    // Timeline, high half of the position, number of the segment of 16 MB within the low half.
    let segment = cell("wal_segment_backup_start")?;
    let high = u32::from_str_radix(segment.get(8..16)?, 16).ok()?;
    let number = u64::from_str_radix(segment.get(16..24)?, 16).ok()?;
    let offset: u64 = cell("wal_segment_offset_backup_start")?.parse().ok()?;
    let low = u32::try_from((number << 24).checked_add(offset)?).ok()?;
    Some(Backup {
        size: cell("expanded_size_bytes")?.parse().ok()?,
        start: format!("{high:X}/{low:X}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADER: &str = "name\tlast_modified\texpanded_size_bytes\twal_segment_backup_start\twal_segment_offset_backup_start";

    #[test]
    fn position_of_a_backup() {
        let backup = parse(
            HEADER,
            "base_1\t2040\t1000\t0000000A0000000B00000012\t00000040",
        )
        .unwrap();
        assert_eq!(
            backup,
            Backup {
                size: 1000,
                start: "B/12000028".into()
            }
        );
        assert_eq!(
            parse(HEADER, "base_1\t2040\t1000\t0000000A0000000B00000012"),
            None
        );
        assert_eq!(parse("name", "base_1"), None);
    }

    proptest! {
        #[test]
        fn any_row_is_read(header: String, row: String) {
            let _ = parse(&header, &row);
            let _ = parse(HEADER, &row);
        }
    }
}

/// What WAL-E prints, spoiled; `make fuzz`.
#[cfg(test)]
mod fuzz {
    use super::*;

    #[test]
    #[ignore = "long: make fuzz"]
    fn answers_of_wal_e() {
        let list = "name\texpanded_size_bytes\twal_segment_backup_start\twal_segment_offset_backup_start\n\
            base_1\t1000000\t0000000A0000000B00000012\t00000040";
        primacy_fuzz::text(&[list], |input| {
            let (header, row) = input.split_once('\n').unwrap_or((input, ""));
            let Some(backup) = parse(header, row) else {
                return false;
            };
            // It becomes a part of SQL.
            let mark = |mark: char| mark == '/' || mark.is_ascii_hexdigit();
            assert!(backup.start.chars().all(mark), "{}", backup.start);
            true
        });
    }
}
