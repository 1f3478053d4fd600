//! Whose acknowledgement a walsender's is (`ha.md` W25). PostgreSQL knows standbys by `application_name` alone: a member
//! of a standby cluster that is called like a member of this one is taken for it, and a commit that only the other
//! site has is acknowledged. While a name may mean two servers, nobody of that name is synchronous.

use primacy_model::{MemberName, WalSender, WalStatus, slot_name};

use crate::situation::Situation;

/// Whether somebody else may be acknowledging commits in that member's name: two servers stream by it, or the one
/// that does came through another slot than the member's. A member that connects anew while its old connection has
/// not ended yet is two for a while, and the older one acknowledges nothing any more.
pub(super) fn is_ambiguous(s: &Situation<'_>, wal: &WalStatus, name: &MemberName) -> bool {
    let own = slot_name(name);
    let is_foreign = |sender: &WalSender| {
        s.global.use_slots && sender.slot.as_ref().is_some_and(|slot| *slot != own)
    };
    let bearers = wal.senders.iter().filter(|sender| {
        matches!(sender.state.as_str(), "streaming" | "catchup")
            && name.matches_application_name(&sender.application_name)
    });
    let bearers: Vec<&WalSender> = bearers.collect();
    bearers.len() > 1 || bearers.into_iter().any(is_foreign)
}
