//! Ports that no other test on this machine uses.
//!
//! Binding to port 0 and closing again is a race between tests that run at once: between the close and the server's
//! own bind, the kernel may give the port to somebody else, as a listener or as the source of an outgoing
//! connection. So ports come in blocks from below the ephemeral range, and a block is leased by a lock on a file,
//! which the kernel releases when the process ends, however it ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::net::TcpListener;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

/// Below Linux's default ephemeral range (32768 and up), above the registered ports that a developer's machine uses.
const FIRST: u16 = 20_000;
const END: u16 = 32_000;
/// A three-member cluster with HAProxy and a three-member etcd needs about twenty.
const BLOCK: u16 = 40;

const LEASES: &str = "/tmp/primacy-test-ports";

struct Block {
    next: u16,
    end: u16,
    _lease: File,
}

static BLOCKS: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A port on 127.0.0.1 that is free now, and that no other test will be given while this process lives.
///
/// # Errors
/// All blocks are leased, or the directory of leases is not writable.
pub fn free() -> Result<u16> {
    let mut blocks = BLOCKS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    loop {
        if let Some(block) = blocks.last_mut() {
            while block.next < block.end {
                let port = block.next;
                block.next += 1;
                if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                    return Ok(port);
                }
            }
        }
        let block = lease_block()?;
        blocks.push(block);
    }
}

fn lease_block() -> Result<Block> {
    // Starting anywhere spreads concurrent tests out, so that a port just released by one is not the next one's first.
    let blocks = (END - FIRST) / BLOCK;
    let offset = rand::random_range(0..blocks);
    for index in 0..blocks {
        let base = FIRST + (offset + index) % blocks * BLOCK;
        if let Some(lease) = lease(Path::new(LEASES), base)? {
            return Ok(Block {
                next: base,
                end: base + BLOCK,
                _lease: lease,
            });
        }
    }
    bail!("all ports for tests are leased by running processes (see {LEASES})")
}

/// Leases `number` among those that `directory` is for, until the file is dropped or the process ends. `None`: another
/// process has it.
///
/// # Errors
/// The directory is not writable.
pub(crate) fn lease(directory: &Path, number: u16) -> Result<Option<File>> {
    if !directory.exists() {
        // Another test may be creating it at this moment; whoever comes second finds it there.
        let _ = std::fs::create_dir(directory);
        let _ = std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o1777));
    }
    let path = directory.join(number.to_string());
    let lease =
        open_lease(&path).with_context(|| format!("cannot open the lease {}", path.display()))?;
    match lease.try_lock() {
        Ok(()) => Ok(Some(lease)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}

/// Opens a lease file for reading, which is enough to lock it, also where another user created it: in a sticky
/// directory Linux refuses `O_CREAT` on another user's file, even to root.
fn open_lease(path: &Path) -> std::io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let created = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .open(path);
            match created {
                Ok(_) => File::open(path),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => File::open(path),
                Err(error) => Err(error),
            }
        }
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn ports_are_distinct_and_can_be_bound() {
        let ports: BTreeSet<u16> = (0..100)
            .map(|_| super::free().expect("a free port"))
            .collect();
        assert_eq!(ports.len(), 100);
        assert!(
            ports
                .iter()
                .all(|port| (super::FIRST..super::END).contains(port))
        );
    }
}
