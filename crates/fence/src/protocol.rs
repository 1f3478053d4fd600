//! What agent and fence say to each other: fixed-size packets with a version, so that the two may be of
//! different releases during an upgrade.

use std::time::Duration;

/// Begins every packet.
const MAGIC: [u8; 4] = *b"PFNC";
/// The version that this release speaks. A fence answers a message of a later version with
/// [`Status::Refused`]; the agent then starts a fence of its own release once this one has ended.
const VERSION: u16 = 1;
/// Length of a message.
pub(crate) const MESSAGE: usize = 32;
/// Length of an answer.
pub(crate) const ANSWER: usize = 8;

/// A postmaster that cannot be confused with another process of its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Process id.
    pub pid: i32,
    /// Start time in clock ticks since boot, as in `/proc/<pid>/stat`.
    pub start_ticks: u64,
}

/// What the agent says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Kill the target when CLOCK_BOOTTIME reaches the deadline.
    Arm {
        /// The deadline.
        deadline: Duration,
        /// Whom to kill.
        target: Target,
    },
    /// The same, unless an earlier deadline is held for this target.
    ArmAtMost {
        /// The deadline.
        deadline: Duration,
        /// Whom to kill.
        target: Target,
    },
    /// Kill nobody.
    Disarm,
    /// Kill nobody, and end.
    Quit,
}

/// What the fence answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds the deadline.
    Armed,
    /// It holds none.
    Disarmed,
    /// The deadline passed: the target was killed.
    Fired,
    /// The message was not understood, or the target does not live.
    Refused,
    /// Said beside the others, whenever an agent comes: it may not lock itself into memory.
    NotLocked,
}

impl Message {
    pub(crate) fn encode(self) -> [u8; MESSAGE] {
        let nobody = Target {
            pid: 0,
            start_ticks: 0,
        };
        let (kind, deadline, target) = match self {
            Message::Arm { deadline, target } => (1u16, deadline, target),
            Message::Disarm => (2, Duration::ZERO, nobody),
            Message::Quit => (3, Duration::ZERO, nobody),
            Message::ArmAtMost { deadline, target } => (4, deadline, target),
        };
        let nanoseconds = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        let mut packet = [0; MESSAGE];
        packet[..4].copy_from_slice(&MAGIC);
        packet[4..6].copy_from_slice(&VERSION.to_le_bytes());
        packet[6..8].copy_from_slice(&kind.to_le_bytes());
        packet[8..16].copy_from_slice(&nanoseconds.to_le_bytes());
        packet[16..24].copy_from_slice(&target.start_ticks.to_le_bytes());
        packet[24..28].copy_from_slice(&target.pid.to_le_bytes());
        packet
    }

    /// `None`: not a message of this version.
    pub(crate) fn decode(packet: &[u8]) -> Option<Self> {
        let (head, rest) = packet.split_first_chunk::<4>()?;
        let (version, rest) = rest.split_first_chunk::<2>()?;
        let (kind, rest) = rest.split_first_chunk::<2>()?;
        let (nanoseconds, rest) = rest.split_first_chunk::<8>()?;
        let (start_ticks, rest) = rest.split_first_chunk::<8>()?;
        let (pid, _) = rest.split_first_chunk::<4>()?;
        if *head != MAGIC || u16::from_le_bytes(*version) != VERSION {
            return None;
        }
        let deadline = Duration::from_nanos(u64::from_le_bytes(*nanoseconds));
        let target = Target {
            pid: i32::from_le_bytes(*pid),
            start_ticks: u64::from_le_bytes(*start_ticks),
        };
        match u16::from_le_bytes(*kind) {
            1 => Some(Message::Arm { deadline, target }),
            2 => Some(Message::Disarm),
            3 => Some(Message::Quit),
            4 => Some(Message::ArmAtMost { deadline, target }),
            _ => None,
        }
    }
}

impl Status {
    pub(crate) fn encode(self) -> [u8; ANSWER] {
        let code: u16 = match self {
            Status::Armed => 1,
            Status::Disarmed => 2,
            Status::Fired => 3,
            Status::Refused => 4,
            Status::NotLocked => 5,
        };
        let mut packet = [0; ANSWER];
        packet[..4].copy_from_slice(&MAGIC);
        packet[4..6].copy_from_slice(&VERSION.to_le_bytes());
        packet[6..].copy_from_slice(&code.to_le_bytes());
        packet
    }

    pub(crate) fn decode(packet: &[u8]) -> Option<Self> {
        let (head, rest) = packet.split_first_chunk::<4>()?;
        let code = rest.get(2..4)?;
        if *head != MAGIC {
            return None;
        }
        match code {
            [1, 0] => Some(Status::Armed),
            [2, 0] => Some(Status::Disarmed),
            [3, 0] => Some(Status::Fired),
            [4, 0] => Some(Status::Refused),
            [5, 0] => Some(Status::NotLocked),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_answers_round_trip() {
        let target = Target {
            pid: 4711,
            start_ticks: u64::MAX - 3,
        };
        let deadline = Duration::new(12_345, 678_901_234);
        for message in [
            Message::Arm { deadline, target },
            Message::ArmAtMost { deadline, target },
            Message::Disarm,
            Message::Quit,
        ] {
            assert_eq!(Message::decode(&message.encode()), Some(message));
        }
        for status in [
            Status::Armed,
            Status::Disarmed,
            Status::Fired,
            Status::Refused,
            Status::NotLocked,
        ] {
            assert_eq!(Status::decode(&status.encode()), Some(status));
        }
    }

    #[test]
    fn what_is_not_ours_is_refused() {
        let mut packet = Message::Disarm.encode();
        packet[4] = 9;
        assert_eq!(Message::decode(&packet), None);
        assert_eq!(Message::decode(b"PFNC"), None);
        assert_eq!(Message::decode(&[]), None);
        assert_eq!(Status::decode(b"xxxxxxxx"), None);
    }

    #[test]
    #[ignore = "long: make fuzz"]
    fn packets() {
        let target = Target {
            pid: -1,
            start_ticks: u64::MAX,
        };
        let deadline = Duration::from_nanos(u64::MAX);
        let samples = [
            Message::Arm { deadline, target }.encode(),
            Message::Quit.encode(),
        ];
        let answer = Status::Armed.encode();
        primacy_fuzz::bytes(&[&samples[0], &samples[1], &answer], |input| {
            if let Some(status) = Status::decode(input) {
                assert_eq!(Status::decode(&status.encode()), Some(status));
            }
            let Some(message) = Message::decode(input) else {
                return false;
            };
            assert_eq!(Message::decode(&message.encode()), Some(message));
            true
        });
    }
}
