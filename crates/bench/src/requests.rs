//! How many requests an agent answers, and how fast.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::milliseconds;

/// As many clients ask at the same time.
const CONNECTIONS: usize = 16;

/// What came of it.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) per_second: f64,
    pub(crate) median_ms: f64,
    pub(crate) p99_ms: f64,
}

/// Has [`CONNECTIONS`] clients ask one after the other's answer for so long. A client keeps its connection where the
/// server does, and connects again where it does not, as HTTP clients do.
pub(crate) async fn load(port: u16, method: &str, path: &str, period: Duration) -> Result<Load> {
    let end = Instant::now() + period;
    let request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n");
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| tokio::spawn(ask_until(port, request.clone(), end)))
        .collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    ensure!(!times.is_empty(), "{method} {path}: no answer");
    times.sort();
    let at = |share: f64| milliseconds(times[((times.len() - 1) as f64 * share) as usize]);
    Ok(Load {
        per_second: times.len() as f64 / period.as_secs_f64(),
        median_ms: at(0.5),
        p99_ms: at(0.99),
    })
}

async fn ask_until(port: u16, request: String, end: Instant) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    let mut kept = None;
    while Instant::now() < end {
        let begin = Instant::now();
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => TcpStream::connect(("127.0.0.1", port)).await?,
        };
        stream.write_all(request.as_bytes()).await?;
        if read_answer(&mut stream).await? {
            kept = Some(stream);
        }
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// Reads one whole answer; returns whether the connection can be used again.
async fn read_answer(stream: &mut TcpStream) -> Result<bool> {
    let mut answer = Vec::with_capacity(4096);
    loop {
        let head = answer.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(head) = head {
            let text = std::str::from_utf8(&answer[..head])?.to_ascii_lowercase();
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"));
            let keeps = text.starts_with("http/1.1") && !text.contains("connection: close");
            if let (true, Some(length)) = (keeps, length) {
                let whole = head + 4 + length.trim().parse::<usize>()?;
                while answer.len() < whole {
                    let read = stream.read_buf(&mut answer).await?;
                    ensure!(read > 0, "the answer broke off");
                }
                return Ok(true);
            }
            // It ends with the connection.
            stream.read_to_end(&mut answer).await?;
            return Ok(false);
        }
        let read = stream.read_buf(&mut answer).await.context("no answer")?;
        ensure!(read > 0, "no answer");
    }
}
