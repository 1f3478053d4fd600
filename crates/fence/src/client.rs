//! The agent's side: starts the fence, or finds the one of an agent before it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with, socketpair, sockopt,
};
use rustix::process::geteuid;

use crate::protocol::{ANSWER, Message, Status, Target};

/// A fence could not be started or told.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// It could not be started.
    #[error("the fence cannot be started from {executable}")]
    Spawn {
        /// The executable.
        executable: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It could not be told.
    #[error("the fence cannot be reached: {0}")]
    Unreachable(Errno),
}

/// The connection to the fence of one data directory. Nothing here waits but [`FenceClient::ensure`] and
/// [`FenceClient::quit`].
pub struct FenceClient {
    executable: PathBuf,
    address: String,
    connection: Option<OwnedFd>,
    child: Option<Child>,
    status: Option<Status>,
    locked: bool,
}

impl FenceClient {
    /// The fence of this data directory, if one runs; it is started when it is first needed.
    pub fn new(executable: PathBuf, data_dir: &Path) -> Self {
        let address = address(data_dir);
        let connection = reach(&address).ok();
        FenceClient {
            executable,
            address,
            connection,
            child: None,
            status: None,
            locked: true,
        }
    }

    /// Whether the fence lives, as far as its socket tells.
    pub fn is_connected(&mut self) -> bool {
        self.listen();
        self.connection.is_some()
    }

    /// The connection, to wait until the fence says something or is gone.
    pub fn connection(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(AsFd::as_fd)
    }

    /// Starts the fence where none runs. Reads the executable from the disk, so it may take as long as that.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn ensure(&mut self) -> Result<(), FenceError> {
        // One that was taken over holds a deadline, which is not to be disturbed.
        if self.is_connected() {
            return Ok(());
        }
        self.start()?;
        self.tell(Message::Disarm).map_err(FenceError::Unreachable)
    }

    /// Kill the target when CLOCK_BOOTTIME reaches the deadline, unless told otherwise before.
    ///
    /// # Errors
    /// No fence holds the deadline: none runs.
    pub fn arm(&mut self, deadline: Duration, target: Target) -> Result<(), FenceError> {
        self.tell(Message::Arm { deadline, target })
            .map_err(FenceError::Unreachable)
    }

    /// The same, unless it holds an earlier deadline for this target.
    ///
    /// # Errors
    /// No fence holds a deadline: none runs.
    pub fn arm_at_most(&mut self, deadline: Duration, target: Target) -> Result<(), FenceError> {
        self.tell(Message::ArmAtMost { deadline, target })
            .map_err(FenceError::Unreachable)
    }

    /// Kill nobody.
    pub fn disarm(&mut self) {
        let _ = self.tell(Message::Disarm);
    }

    /// Kill nobody, and end.
    pub fn quit(&mut self) {
        let _ = self.tell(Message::Quit);
        self.connection = None;
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// What the fence said last; `None` while none runs, or before it has said anything.
    pub fn status(&mut self) -> Option<Status> {
        self.listen();
        self.connection.as_ref().and(self.status)
    }

    /// Whether it is locked in memory, as far as it did not say otherwise.
    pub fn is_locked(&mut self) -> bool {
        self.listen();
        self.locked
    }

    fn start(&mut self) -> Result<(), FenceError> {
        if let Some(mut child) = self.child.take() {
            // It ended by itself, or is of no use: reaped, so that no zombie stays.
            let _ = child.kill();
            let _ = child.wait();
        }
        if let Ok(connection) = reach(&self.address) {
            self.connection = Some(connection);
            return Ok(());
        }
        let unreachable = FenceError::Unreachable;
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(unreachable)?;
        // A process group of its own: what ends the agent's group does not end the fence.
        let child = Command::new(&self.executable)
            .args(["fence", &self.address])
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(|source| FenceError::Spawn {
                executable: self.executable.clone(),
                source,
            })?;
        self.child = Some(child);
        self.connection = Some(ours);
        self.status = None;
        self.locked = true;
        Ok(())
    }

    fn tell(&mut self, message: Message) -> Result<(), Errno> {
        self.listen();
        let connection = self.connection.as_ref().ok_or(Errno::NOTCONN)?;
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match send(connection, &message.encode(), flags) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.connection = None;
                Err(error)
            }
        }
    }

    /// Takes what the fence has said meanwhile.
    fn listen(&mut self) {
        while let Some(connection) = &self.connection {
            let mut packet = [0u8; ANSWER];
            match recv(connection, &mut packet[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.connection = None,
                Ok((length, _)) => match Status::decode(&packet[..length.min(ANSWER)]) {
                    Some(Status::NotLocked) => self.locked = false,
                    status => self.status = status,
                },
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.connection = None,
            }
        }
    }
}

fn reach(address: &str) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(
        &socket,
        &SocketAddrUnix::new_abstract_name(address.as_bytes())?,
    )?;
    // Anybody may take a name; only our own user's fence is told anything.
    if sockopt::socket_peercred(&socket)?.uid != geteuid() {
        return Err(Errno::ACCESS);
    }
    Ok(socket)
}

/// One fence per user and data directory, which may not be there yet, or be replaced later by another one, or by a link.
fn address(data_dir: &Path) -> String {
    let data_dir = place(data_dir);
    // FNV-1a: the same in every release.
    let bytes = data_dir.as_os_str().as_encoded_bytes();
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("primacy-fence-{}-{hash:016x}", geteuid().as_raw())
}

/// Where a path leads, but for its last name, which stands for whatever is there; what does not exist yet is no link.
fn place(path: &Path) -> PathBuf {
    let Ok(absolute) = std::path::absolute(path) else {
        return path.to_path_buf();
    };
    let mut components: Vec<Component<'_>> = absolute.components().collect();
    let last = components.pop_if(|last| matches!(last, Component::Normal(_)));
    let mut place = PathBuf::new();
    for component in components {
        if component == Component::ParentDir {
            place.pop();
            continue;
        }
        place.push(component);
        if let Ok(target) = place.canonicalize() {
            place = target;
        }
    }
    place.extend(last);
    place
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, create_dir_all, remove_dir, remove_file, rename};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_address_stays_whatever_becomes_of_the_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        let data_dir = root.join("15/15");
        create_dir_all(root.join("disk")).unwrap();
        symlink(&root, root.join("link")).unwrap();
        let up: PathBuf = std::env::current_dir()
            .unwrap()
            .components()
            .skip(1)
            .map(|_| "..")
            .collect();
        let spellings = [
            data_dir.clone(),
            root.join("15/15/"),
            root.join("./15//15/."),
            root.join("link/15/15/"),
            root.join("15/none/../15"),
            up.join(data_dir.strip_prefix("/").unwrap()),
        ];
        let expected = address(&data_dir);
        let stays = |when: &str| {
            for spelling in &spellings {
                assert_eq!(address(spelling), expected, "{} {when}", spelling.display());
            }
        };
        stays("before it exists");
        create_dir_all(&data_dir).unwrap();
        stays("while it exists");
        rename(&data_dir, root.join("15/15.failed")).unwrap();
        stays("once it was set aside");
        symlink(root.join("disk"), &data_dir).unwrap();
        stays("as a link");
        remove_file(&data_dir).unwrap();
        create_dir(&data_dir).unwrap();
        stays("once it was replaced");
        remove_dir(&data_dir).unwrap();
        assert_ne!(address(&root.join("15/other")), expected);
    }
}
