//! Servers as child processes: started, pinned, waited for, their CPU time and memory read, stopped.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::client::Client;
use crate::wire::Target;
use crate::{Error, Result};

/// How long a server may take to answer its first request.
const START: Duration = Duration::from_secs(60);
/// How long a server may take to stop after SIGTERM.
const STOP: Duration = Duration::from_secs(20);

/// A core for the generator and one for the servers, so that neither takes time from the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// The generator's.
    pub generator: usize,
    /// The servers'; measured servers are not loaded at the same time.
    pub server: usize,
}

impl Cores {
    /// The first two cores that this process may use.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] when there is only one.
    pub fn choose() -> Result<Cores> {
        let allowed = sched_getaffinity(None).map_err(Error::io("read the CPU affinity"))?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        match (cores.next(), cores.next()) {
            (Some(generator), Some(server)) => Ok(Cores { generator, server }),
            _ => Err(Error::Usage("pinning needs two cores".into())),
        }
    }
}

/// Binds the calling thread, and every thread and process it starts from now on, to one core.
///
/// # Errors
///
/// [`Error::Io`] when this process may not use that core.
pub fn pin_to(core: usize) -> Result<()> {
    if core >= CpuSet::MAX_CPU {
        return Err(Error::Usage(format!("there is no core {core}")));
    }
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).map_err(Error::io(format!("pin to core {core}")))
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    log: PathBuf,
    /// Where it listens.
    pub target: Target,
}

impl Server {
    /// Starts `command` with `--listen` and a free port behind it and waits until `ready_path` is answered with 200.
    /// Its output goes to `log`. With `cores`, it is bound to the servers' core and the caller to the generator's.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be started; [`Error::Unexpected`], naming the log, when it ends or stays silent.
    pub fn start(mut command: Command, ready_path: &str, log: &Path, cores: Option<Cores>) -> Result<Server> {
        let target = Target { address: free_address()? };
        let output = File::create(log).map_err(Error::io(format!("create {}", log.display())))?;
        let errors = output.try_clone().map_err(Error::io("share a log file"))?;
        command.arg("--listen").arg(target.address.to_string());
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        if let Some(cores) = cores {
            // A child inherits the affinity of the thread that starts it.
            pin_to(cores.server)?;
        }
        let started = command.spawn().map_err(Error::io(format!("start {}", command.get_program().display())));
        if let Some(cores) = cores {
            pin_to(cores.generator)?;
        }
        let mut server = Server { child: started?, log: log.to_owned(), target };
        server.wait_until_ready(ready_path)?;
        Ok(server)
    }

    fn wait_until_ready(&mut self, path: &str) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            let answer = Client::connect(self.target, Vec::new()).and_then(|mut client| client.call("GET", path, b""));
            if matches!(answer, Ok((200, _))) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Error::Unexpected(format!("the server ended with {status}; {}", self.last_words())));
            }
            if Instant::now() >= deadline {
                return Err(Error::Unexpected(format!(
                    "the server is not ready after {START:?}; {}",
                    self.last_words()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(5).collect();
        format!("its last lines: {}", lines.into_iter().rev().collect::<Vec<_>>().join(" | "))
    }

    /// CPU time it has used so far, user and system. Its grain is the kernel's tick, usually 10 ms.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Unexpected`] when `/proc` does not tell.
    pub fn cpu(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.child.id());
        let text = std::fs::read_to_string(&path).map_err(Error::io(format!("read {path}")))?;
        // The second field is the program's name in parentheses and may hold anything; utime and stime are fields 14
        // and 15, the 12th and 13th behind it.
        let behind = text.rsplit_once(") ").map_or("", |(_, behind)| behind);
        let mut ticks = behind.split(' ').skip(11).map_while(|field| field.parse::<u64>().ok());
        match (ticks.next(), ticks.next()) {
            (Some(user), Some(system)) => {
                let per_second = rustix::param::clock_ticks_per_second().max(1);
                Ok(Duration::from_secs_f64((user + system) as f64 / per_second as f64))
            }
            _ => Err(Error::Unexpected(format!("{path} has no CPU times"))),
        }
    }

    /// Its resident memory in bytes.
    ///
    /// # Errors
    ///
    /// As [`Server::cpu`].
    pub fn resident(&self) -> Result<u64> {
        resident(self.child.id())
    }

    /// Asks it to stop and waits until it has.
    ///
    /// # Errors
    ///
    /// [`Error::Unexpected`] when it ends with a failure or does not end in time (it is killed then).
    pub fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).map_err(Error::io("stop the server"))?;
        }
        let deadline = Instant::now() + STOP;
        loop {
            match self.child.try_wait().map_err(Error::io("wait for the server"))? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(Error::Unexpected(format!("the server stopped with {status}; {}", self.last_words())));
                }
                None if Instant::now() >= deadline => {
                    return Err(Error::Unexpected(format!("the server did not stop within {STOP:?}")));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Of no effect on one that has ended and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory of a process in bytes.
///
/// # Errors
///
/// [`Error::Io`] or [`Error::Unexpected`] when `/proc` does not tell.
pub fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = std::fs::read_to_string(&path).map_err(Error::io(format!("read {path}")))?;
    let kilobytes = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().strip_suffix(" kB"))
        .and_then(|number| number.parse::<u64>().ok());
    kilobytes.map(|count| count * 1024).ok_or_else(|| Error::Unexpected(format!("{path} has no VmRSS")))
}

/// A loopback port that nobody listens on. Somebody else could take it before the server does; then the server says so.
fn free_address() -> Result<SocketAddr> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    TcpListener::bind(any).and_then(|listener| listener.local_addr()).map_err(Error::io("find a free port"))
}

/// The `keyward` binary beside this program, unless `given`.
///
/// # Errors
///
/// [`Error::Usage`] when there is none.
pub fn keyward_binary(given: Option<&Path>) -> Result<PathBuf> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => this_program()?.with_file_name("keyward"),
    };
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::Usage(format!("{} is missing: build keyward first, or give --keyward", path.display())))
    }
}

/// This program's own path, to start it again as the floor.
///
/// # Errors
///
/// [`Error::Io`] when the system does not tell.
pub fn this_program() -> Result<PathBuf> {
    std::env::current_exe().map_err(Error::io("find this program"))
}

/// Starts keyward on `data_dir`; the first root key is `root_key`.
///
/// # Errors
///
/// As [`Server::start`].
pub fn start_keyward(
    binary: &Path,
    data_dir: &Path,
    root_key: &str,
    log: &Path,
    cores: Option<Cores>,
) -> Result<Server> {
    Server::start(keyward(binary, data_dir, root_key), "/health/ready", log, cores)
}

/// What starts keyward on a directory.
pub fn keyward(binary: &Path, data_dir: &Path, root_key: &str) -> Command {
    let mut command = Command::new(binary);
    command.arg("serve").arg("--data-dir").arg(data_dir).env("KEYWARD_ROOT_KEY", root_key);
    command
}

/// Starts the floor, answering with the content of `body_file`.
///
/// # Errors
///
/// As [`Server::start`].
pub fn start_floor(body_file: &Path, log: &Path, cores: Option<Cores>) -> Result<Server> {
    let mut command = Command::new(this_program()?);
    command.arg("floor").arg("--body-file").arg(body_file);
    Server::start(command, "/", log, cores)
}
