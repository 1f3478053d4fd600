//! One HTTP request, for REST APIs on the loopback.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A response. `body` is empty where only a status line came.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    /// As they came, in their order.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    /// The value of a header, in whatever case its name came.
    pub fn header(&self, name: &str) -> Option<&str> {
        let is = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.headers
            .iter()
            .find(is)
            .map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {:?}", self.body))
    }
}

/// Sends one request to 127.0.0.1 and reads until the server closes.
///
/// # Errors
/// No connection, no complete answer within the deadline, or not an HTTP answer.
pub async fn request(
    port: u16,
    method: &str,
    path: &str,
    body: Option<&Value>,
    within: Duration,
) -> Result<Response> {
    let mut text = format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n");
    if let Some(body) = body {
        let body = body.to_string();
        text.push_str(&format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    } else {
        text.push_str("\r\n");
    }
    let answer = exchange(port, &text, within).await?;
    parse(&answer).with_context(|| format!("{method} 127.0.0.1:{port}{path}"))
}

/// Sends text to 127.0.0.1 as it is, and returns what comes back until the server closes.
///
/// # Errors
/// No connection, or no end within the deadline.
pub async fn exchange(port: u16, text: &str, within: Duration) -> Result<Vec<u8>> {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(text.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(within, exchange)
        .await
        .map_err(|_| anyhow!("no answer within {within:?}"))
        .and_then(|exchanged| exchanged)
        .with_context(|| {
            format!(
                "127.0.0.1:{port}: {}",
                text.lines().next().unwrap_or_default()
            )
        })
}

/// Reads a response that ended with its connection.
///
/// # Errors
/// It is not an HTTP answer.
pub fn parse(answer: &[u8]) -> Result<Response> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("the answer has no end of headers")?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("HTTP/1."))
        .and_then(|rest| rest.split(' ').nth(1))
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("not an HTTP answer: {head:?}"))?;
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    };
    Ok(Response {
        status,
        headers: lines.filter_map(header).collect(),
        body: body.to_owned(),
    })
}
