//! The file: the library's own tests of log and state machine, and what they leave out.

use std::sync::Arc;

use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use crate::RaftError;
use crate::disk::Disk;
use crate::log::Log;
use crate::replica::Replica;
use crate::types::{Group, StorageError};

struct Fresh;

impl StoreBuilder<Group, Log, Replica, TempDir> for Fresh {
    async fn build(&self) -> Result<(TempDir, Log, Replica), StorageError> {
        let dir = tempfile::tempdir().unwrap();
        let disk = Arc::new(Disk::open(dir.path(), "a:1", &["a:1".into()]).unwrap());
        let replica = Replica::load(disk.clone()).unwrap();
        Ok((dir, Log::new(disk), replica))
    }
}

#[test]
fn the_librarys_suite() {
    // It brings its own runtime when there is none, and spawn_blocking wants one: give it ours.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    Suite::test_all(Fresh).unwrap();
}

fn open(dir: &TempDir, member: &str, members: &[&str]) -> Result<Disk, RaftError> {
    let members: Vec<String> = members.iter().map(|member| (*member).to_owned()).collect();
    Disk::open(dir.path(), member, &members)
}

fn refusal(result: Result<Disk, RaftError>) -> RaftError {
    match result {
        Ok(_) => panic!("it should not open"),
        Err(error) => error,
    }
}

#[test]
fn a_file_is_opened_once() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(&dir, "a:1", &["a:1"]).unwrap();
    let error = refusal(open(&dir, "a:1", &["a:1"]));
    assert!(matches!(error, RaftError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("another process has"), "{error}");
    disk.close();
    assert!(disk.vote().unwrap_err().to_string().contains("closed"));
    open(&dir, "a:1", &["a:1"]).unwrap();
}

#[test]
fn a_file_belongs_to_one_member_of_one_group() {
    let dir = tempfile::tempdir().unwrap();
    open(&dir, "a:1", &["a:1", "b:1"]).unwrap().close();
    let error = refusal(open(&dir, "a:1", &["a:1", "c:1"]));
    assert!(matches!(error, RaftError::Foreign { .. }), "{error}");
    // Another member that happens to have the same file name.
    let error = refusal(open(&dir, "a_1", &["a_1"]));
    assert!(matches!(error, RaftError::Foreign { .. }), "{error}");
}

#[test]
fn a_file_of_another_kind_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a_1.raft");
    std::fs::write(&path, "something else entirely, and quite precious").unwrap();
    let error = refusal(open(&dir, "a:1", &["a:1"]));
    assert!(
        matches!(error, RaftError::Disk { .. } | RaftError::Format { .. }),
        "{error}"
    );
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "something else entirely, and quite precious"
    );
}

#[test]
fn a_later_format_is_refused() {
    use redb::{Database, TableDefinition};
    let dir = tempfile::tempdir().unwrap();
    open(&dir, "a:1", &["a:1"]).unwrap().close();
    let db = Database::open(dir.path().join("a_1.raft")).unwrap();
    let txn = db.begin_write().unwrap();
    let header = br#"{"magic":"primacy-raft","format":2,"member":"a:1","members":["a:1"]}"#;
    txn.open_table(TableDefinition::<&str, &[u8]>::new("meta"))
        .unwrap()
        .insert("header", &header[..])
        .unwrap();
    txn.commit().unwrap();
    drop(db);
    let error = refusal(open(&dir, "a:1", &["a:1"]));
    assert!(matches!(error, RaftError::Format { .. }), "{error}");
    assert!(error.to_string().contains("format"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = refusal(Disk::open(&file.join("below"), "a:1", &["a:1".into()]));
    assert!(matches!(error, RaftError::DataDir { .. }), "{error}");
}

#[test]
fn the_file_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let disk = open(&dir, "a:1", &["a:1"]).unwrap();
    let mode = std::fs::metadata(disk.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
