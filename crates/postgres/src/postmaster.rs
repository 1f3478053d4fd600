use std::io;

use primacy_model::PostmasterIdentity;

/// Resolves when this process is dead: gone, a zombie, or its number belongs to another one.
pub async fn postmaster_death(identity: PostmasterIdentity) {
    let _ = identity;
    todo!()
}

/// The fence: SIGKILL to the postmaster and everything below it, without touching a disk. Returns when the
/// signals are sent; `Ok` also when nothing was alive.
pub fn kill_now(identity: PostmasterIdentity) -> io::Result<()> {
    let _ = identity;
    todo!()
}
