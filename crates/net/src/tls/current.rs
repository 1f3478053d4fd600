//! A client's certificates as the files hold them now: they are renewed while the process lives.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::{TlsClient, TlsClientOptions, TlsError};

/// How long a connection waits for a look at the files when there is a client from before. A disk that hangs must not
/// cost a leader its lease, which is renewed over such connections.
const PATIENCE: Duration = Duration::from_secs(1);

/// The options with their files read, and read again when they have changed.
pub(crate) struct CurrentTls {
    options: TlsClientOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    good: Option<Loaded>,
    /// One at a time: whatever a disk that hangs holds up is one thread.
    look: Option<(Instant, JoinHandle<Result<Loaded, TlsError>>)>,
    /// What is wrong with the files, as far as it was told.
    problem: Option<String>,
}

#[derive(Clone)]
struct Loaded {
    client: TlsClient,
    files: Vec<Option<Identity>>,
}

impl CurrentTls {
    /// Reads nothing yet.
    pub(crate) fn new(options: TlsClientOptions) -> Self {
        CurrentTls {
            options,
            state: Mutex::default(),
        }
    }

    /// The client for a new connection. What cannot be used, such as a certificate that does not belong to the key
    /// since a renewal is half done, leaves the last good client in place, with a warning; the next call looks again.
    /// Cancel safe.
    ///
    /// # Errors
    /// There is no client from before, and the files do not make one.
    pub(crate) async fn get(&self) -> Result<TlsClient, TlsError> {
        let mut state = self.state.lock().await;
        let State {
            good,
            look,
            problem,
        } = &mut *state;
        let (since, looking) = look.get_or_insert_with(|| {
            let (options, known) = (self.options.clone(), good.clone());
            let look = tokio::task::spawn_blocking(move || look_at(&options, known));
            (Instant::now(), look)
        });
        let found = match good {
            None => Ok(looking.await),
            Some(_) => timeout_at(*since + PATIENCE, looking).await,
        };
        if found.is_ok() {
            *look = None;
        }
        let found = match found {
            Ok(Ok(found)) => found,
            Ok(Err(panic)) => Err(TlsError::Settings(panic.to_string())),
            Err(_) => Err(TlsError::Settings("reading them takes too long".into())),
        };
        match (found, &*good) {
            (Ok(now), _) => {
                *problem = None;
                Ok(good.insert(now).client.clone())
            }
            (Err(error), None) => Err(error),
            (Err(error), Some(before)) => {
                let told = error.to_string();
                if problem.as_ref() != Some(&told) {
                    tracing::warn!("certificates stay those of before: {told}");
                    *problem = Some(told);
                }
                Ok(before.client.clone())
            }
        }
    }
}

/// Reads the files where they are not the known ones. Blocks.
fn look_at(options: &TlsClientOptions, known: Option<Loaded>) -> Result<Loaded, TlsError> {
    // First the identity: what changes while it is read is read again the next time.
    let files: Vec<_> = options.files().into_iter().flat_map(identities).collect();
    match known {
        Some(known) if known.files == files => Ok(known),
        _ => TlsClient::new(options).map(|client| Loaded { client, files }),
    }
}

/// What tells one state of a file from another: its device and inode, size, and the times of its last change of
/// content and of anything at all, which a copied modification time does not hide.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity([i128; 7]);

impl From<Metadata> for Identity {
    fn from(metadata: Metadata) -> Self {
        Identity([
            metadata.dev().into(),
            metadata.ino().into(),
            metadata.len().into(),
            metadata.mtime().into(),
            metadata.mtime_nsec().into(),
            metadata.ctime().into(),
            metadata.ctime_nsec().into(),
        ])
    }
}

/// Of a file, or of a directory and all that is in it; `None` for what is not there.
fn identities(path: &Path) -> Vec<Option<Identity>> {
    let of = |path: &Path| std::fs::metadata(path).ok().map(Identity::from);
    let mut entries: Vec<_> = std::fs::read_dir(path)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    entries.sort();
    let entries = entries.iter().map(|entry| of(entry));
    std::iter::once(of(path)).chain(entries).collect()
}
