//! The fence's own process: one loop over four descriptors.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with,
    bind, listen, recv, send, socket_with, sockopt,
};
use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, geteuid, getrlimit, pidfd_open, pidfd_send_signal,
    setrlimit,
};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

use crate::protocol::{MESSAGE, Message, Status, Target};

/// More than the children of a postmaster with a few thousand connections; those beyond it end by themselves
/// when they notice that the postmaster is gone.
const CHILDREN_TEXT: usize = 64 * 1024;

/// Runs the fence until it is not needed any more: `address` is where agents of its data directory find it,
/// standard input the connection to the agent that started it.
///
/// # Errors
/// It could not be set up. Nothing was killed.
pub fn run(address: &str) -> Result<(), Errno> {
    let listener = listen_at(address)?;
    let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
    let stdin = rustix::io::dup(std::io::stdin())?;
    let mut fence = Fence {
        listener,
        timer,
        connection: Some(stdin),
        armed: None,
        children: vec![0; CHILDREN_TEXT].into_boxed_slice(),
        locked: false,
    };
    fence.locked = lock_memory().is_ok();
    fence.tell_if_not_locked();
    fence.guard()
}

/// As much memory as may be locked, then all that there is. Without the right to it a fence is still better than none.
fn lock_memory() -> Result<(), Errno> {
    let maximum = getrlimit(Resource::Memlock).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    let _ = setrlimit(Resource::Memlock, limit);
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)
}

fn listen_at(address: &str) -> Result<OwnedFd, Errno> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    bind(
        &socket,
        &SocketAddrUnix::new_abstract_name(address.as_bytes())?,
    )?;
    listen(&socket, 4)?;
    Ok(socket)
}

struct Fence {
    listener: OwnedFd,
    timer: OwnedFd,
    connection: Option<OwnedFd>,
    armed: Option<Armed>,
    children: Box<[u8]>,
    locked: bool,
}

struct Armed {
    deadline: Duration,
    target: Target,
    process: OwnedFd,
}

/// Which descriptor woke the loop.
#[derive(Default)]
struct Woken {
    timer: bool,
    process: bool,
    connection: bool,
    listener: bool,
}

impl Fence {
    fn guard(mut self) -> Result<(), Errno> {
        loop {
            let woken = self.wait()?;
            // The deadline first: a packet that came too late does not move it.
            if woken.timer {
                self.deadline_passed();
            }
            if woken.process {
                self.armed = None;
            }
            if woken.connection && !self.hear() {
                return Ok(());
            }
            if woken.listener {
                self.take_over();
            }
            if self.armed.is_none() && self.connection.is_none() {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> Result<Woken, Errno> {
        let timer = self.timer.as_fd();
        let connection = self.connection.as_ref().map_or(timer, AsFd::as_fd);
        let process = self
            .armed
            .as_ref()
            .map_or(timer, |armed| armed.process.as_fd());
        let mut polled = [
            PollFd::from_borrowed_fd(timer, PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(connection, PollFlags::IN),
            PollFd::from_borrowed_fd(process, PollFlags::IN),
        ];
        match poll(&mut polled, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        let ready = |index: usize| !polled[index].revents().is_empty();
        Ok(Woken {
            timer: ready(0),
            listener: ready(1),
            connection: self.connection.is_some() && ready(2),
            process: self.armed.is_some() && ready(3),
        })
    }

    /// Reads one packet. `false`: the fence is to end.
    fn hear(&mut self) -> bool {
        let Some(connection) = &self.connection else {
            return true;
        };
        let mut packet = [0u8; MESSAGE];
        let message = match recv(connection, &mut packet[..], RecvFlags::DONTWAIT) {
            Ok((0, _)) => {
                self.connection = None;
                return true;
            }
            Ok((length, _)) => Message::decode(&packet[..length.min(MESSAGE)]),
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => {
                self.connection = None;
                return true;
            }
        };
        let status = match message {
            Some(Message::Arm { deadline, target }) => self.arm(deadline, target),
            Some(Message::ArmAtMost { deadline, target }) => self.arm_at_most(deadline, target),
            Some(Message::Disarm) => {
                self.armed = None;
                Status::Disarmed
            }
            Some(Message::Quit) => return false,
            None => Status::Refused,
        };
        self.tell(status);
        true
    }

    fn arm(&mut self, deadline: Duration, target: Target) -> Status {
        match &mut self.armed {
            Some(armed) if armed.target == target => armed.deadline = deadline,
            _ => {
                let Some(process) = open(target) else {
                    self.armed = None;
                    return Status::Refused;
                };
                self.armed = Some(Armed {
                    deadline,
                    target,
                    process,
                });
            }
        }
        let timer = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: timespec(deadline),
        };
        match timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &timer) {
            Ok(_) => Status::Armed,
            Err(_) => Status::Refused,
        }
    }

    fn arm_at_most(&mut self, deadline: Duration, target: Target) -> Status {
        let held = self.armed.as_ref().filter(|armed| armed.target == target);
        let deadline = held.map_or(deadline, |armed| armed.deadline.min(deadline));
        self.arm(deadline, target)
    }

    fn deadline_passed(&mut self) {
        let mut expirations = [0u8; 8];
        let _ = rustix::io::read(&self.timer, &mut expirations);
        let Some(armed) = self.armed.take() else {
            return;
        };
        if now() < armed.deadline {
            // It was moved between the timer's expiry and now.
            let (deadline, target) = (armed.deadline, armed.target);
            self.armed = Some(armed);
            self.arm(deadline, target);
            return;
        }
        kill_all(&armed, &mut self.children);
        self.tell(Status::Fired);
    }

    /// Another agent of the same user takes the place of the one before.
    fn take_over(&mut self) {
        let Ok(connection) = accept_with(&self.listener, SocketFlags::CLOEXEC) else {
            return;
        };
        if sockopt::socket_peercred(&connection).is_ok_and(|peer| peer.uid == geteuid()) {
            self.connection = Some(connection);
            self.tell_if_not_locked();
            self.tell(if self.armed.is_some() {
                Status::Armed
            } else {
                Status::Disarmed
            });
        }
    }

    fn tell_if_not_locked(&self) {
        if !self.locked {
            self.tell(Status::NotLocked);
        }
    }

    fn tell(&self, status: Status) {
        if let Some(connection) = &self.connection {
            let _ = send(
                connection,
                &status.encode(),
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            );
        }
    }
}

/// A descriptor of exactly this process; `None` when it does not live.
fn open(target: Target) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(target.pid)?, PidfdFlags::empty()).ok()?;
    // Opened first, then compared: what the descriptor means cannot change any more.
    (stat(target.pid)?.start_ticks == target.start_ticks).then_some(process)
}

/// SIGKILL to the postmaster and its children. It is stopped first, so that no backend is started that the
/// list would miss.
fn kill_all(armed: &Armed, text: &mut [u8]) {
    let _ = pidfd_send_signal(&armed.process, Signal::STOP);
    let length = children(armed.target.pid, text);
    for word in text[..length].split(|byte| *byte == b' ') {
        let pid = std::str::from_utf8(word)
            .ok()
            .and_then(|word| word.trim().parse::<i32>().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        if let Ok(child) = pidfd_open(pid, PidfdFlags::empty())
            && stat(pid.as_raw_nonzero().get()).is_some_and(|stat| stat.parent == armed.target.pid)
        {
            let _ = pidfd_send_signal(&child, Signal::KILL);
        }
    }
    let _ = pidfd_send_signal(&armed.process, Signal::KILL);
}

/// The pids of the children, separated by blanks.
fn children(pid: i32, text: &mut [u8]) -> usize {
    let mut path = [0u8; 64];
    let Some(path) = proc_path(&mut path, pid, "children") else {
        return 0;
    };
    let Ok(mut file) = std::fs::File::open(path) else {
        return 0;
    };
    let mut length = 0;
    while length < text.len() {
        match file.read(&mut text[length..]) {
            Ok(0) | Err(_) => break,
            Ok(read) => length += read,
        }
    }
    length
}

struct Stat {
    parent: i32,
    start_ticks: u64,
}

/// `/proc/<pid>/stat`; `None` when the process is gone or a zombie.
fn stat(pid: i32) -> Option<Stat> {
    let mut path = [0u8; 64];
    let path = proc_path(&mut path, pid, "stat")?;
    let mut text = [0u8; 1024];
    let length = std::fs::File::open(path).ok()?.read(&mut text).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    // The name of the program may hold anything, also blanks and parentheses.
    let mut fields = text.get(text.rfind(')')? + 2..)?.split(' ');
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let start_ticks = fields.nth(17)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(Stat {
        parent,
        start_ticks,
    })
}

/// `/proc/<pid>/stat` or `/proc/<pid>/task/<pid>/children`, written where it allocates nothing.
fn proc_path<'a>(buffer: &'a mut [u8; 64], pid: i32, file: &str) -> Option<&'a str> {
    use std::io::Write;
    let room = buffer.len();
    let mut rest = &mut buffer[..];
    match file {
        "children" => write!(rest, "/proc/{pid}/task/{pid}/children").ok()?,
        file => write!(rest, "/proc/{pid}/{file}").ok()?,
    }
    let length = room - rest.len();
    std::str::from_utf8(&buffer[..length]).ok()
}

fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

fn timespec(at: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(at.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> (Child, Target) {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start_ticks = stat(pid).unwrap().start_ticks;
        (child, Target { pid, start_ticks })
    }

    /// Bytes that are locked in memory.
    fn locked() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().nth(1));
        kilobytes.unwrap().parse::<u64>().unwrap() * 1024
    }

    #[test]
    fn memory_is_locked_as_far_as_that_is_allowed() {
        let before = getrlimit(Resource::Memlock);
        let low = Rlimit {
            current: before
                .maximum
                .map_or(Some(4096), |most| Some(most.min(4096))),
            maximum: before.maximum,
        };
        setrlimit(Resource::Memlock, low).unwrap();
        let allowed = lock_memory().is_ok();
        assert_eq!(getrlimit(Resource::Memlock).current, before.maximum);
        assert_eq!(locked() > 0, allowed);
        rustix::mm::munlockall().unwrap();
        setrlimit(Resource::Memlock, before).unwrap();
    }

    #[test]
    fn a_limit_puts_off_no_deadline_that_is_held_for_this_server() {
        let mut fence = Fence {
            listener: listen_at(&format!("primacy-fence-test-{}", std::process::id())).unwrap(),
            timer: timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC).unwrap(),
            connection: None,
            armed: None,
            children: Box::new([]),
            locked: false,
        };
        let (mut first_child, first) = sleeper();
        let (mut second_child, second) = sleeper();
        let start = now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let held = |fence: &Fence| {
            fence
                .armed
                .as_ref()
                .map(|armed| (armed.deadline, armed.target))
        };

        assert_eq!(fence.arm_at_most(after(300), first), Status::Armed);
        assert_eq!(held(&fence), Some((after(300), first)));
        fence.arm_at_most(after(400), first);
        assert_eq!(held(&fence), Some((after(300), first)), "not put off");
        fence.arm_at_most(after(200), first);
        assert_eq!(held(&fence), Some((after(200), first)), "brought forward");
        fence.arm_at_most(after(500), second);
        assert_eq!(
            held(&fence),
            Some((after(500), second)),
            "of another server"
        );
        fence.arm(after(600), second);
        assert_eq!(
            held(&fence),
            Some((after(600), second)),
            "a lease does put it off"
        );

        for child in [&mut first_child, &mut second_child] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}
