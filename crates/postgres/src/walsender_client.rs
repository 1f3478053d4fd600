//! A small client for physical replication mode, which tokio-postgres does not speak.

use std::ops::Range;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::backend::{DataRowBody, ErrorResponseBody, Message};
use postgres_protocol::message::frontend;
use primacy_model::{Lsn, SystemIdentifier, Timeline};
use primacy_net::{Duplex, SessionTls, may_take_another_way};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::Error;
use crate::conninfo::Conninfo;
use crate::session::{CONNECT_TIMEOUT, session_tls, user};
use crate::settings::Credentials;

/// The longest message taken; a timeline history is far shorter.
const MESSAGE_LIMIT: usize = 16 << 20;

/// IDENTIFY_SYSTEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemIdentity {
    /// `systemid`.
    pub system_identifier: SystemIdentifier,
    /// `timeline`.
    pub timeline: Timeline,
    /// `xlogpos`.
    pub lsn: Lsn,
}

/// A connection in physical replication mode: it serves for questions, not for data.
pub struct WalsenderClient {
    stream: Box<dyn Duplex>,
    buffer: BytesMut,
    address: String,
}

type Row = Vec<Option<String>>;

impl WalsenderClient {
    /// Connects to the first host that answers, and authenticates.
    pub async fn connect(
        target: &Conninfo,
        credentials: &Credentials,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let deadline = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        let mut failure = Error::Unreachable {
            address: target.address(),
            problem: "no host given".into(),
        };
        let tls = session_tls(target, credentials);
        for (host, port) in target.addresses() {
            match Self::connect_to(&host, port, &tls, credentials, deadline).await {
                Ok(client) => return Ok(client),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn connect_to(
        host: &str,
        port: u16,
        tls: &SessionTls,
        credentials: &Credentials,
        deadline: Instant,
    ) -> Result<Self, Error> {
        let unreachable = |problem: String| Error::Unreachable {
            address: format!("{host}:{port}"),
            problem,
        };
        let ways = tls.ways(host).await;
        let mut ways = ways
            .map_err(|error| unreachable(error.to_string()))?
            .into_iter()
            .peekable();
        let mut failure = unreachable("no answer in time".into());
        while let Some(way) = ways.next() {
            let open = async {
                let stream = match host.starts_with('/') {
                    true => Box::new(UnixStream::connect(format!("{host}/.s.PGSQL.{port}")).await?)
                        as Box<dyn Duplex>,
                    false => Box::new(TcpStream::connect((host, port)).await?),
                };
                way.negotiate(host, stream).await
            };
            let stream = match timeout_at(deadline, open).await {
                Ok(Ok(stream)) => stream,
                Ok(Err::<_, std::io::Error>(error)) => {
                    failure = unreachable(error.to_string());
                    continue;
                }
                Err(_) => return Err(failure),
            };
            let mut client = WalsenderClient {
                stream,
                buffer: BytesMut::new(),
                address: format!("{host}:{port}"),
            };
            let started = client
                .bounded(deadline, async |client| client.start(credentials).await)
                .await;
            match started {
                Ok(()) => return Ok(client),
                Err(Error::Refused { code, .. })
                    if ways.peek().is_some() && may_take_another_way(&code) => {}
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    /// IDENTIFY_SYSTEM.
    pub async fn identify_system(&mut self, deadline: Instant) -> Result<SystemIdentity, Error> {
        let rows = self.query("IDENTIFY_SYSTEM", deadline).await?;
        let column = |index: usize| rows.first()?.get(index)?.as_deref();
        let identity = || {
            Some(SystemIdentity {
                system_identifier: SystemIdentifier::parse(column(0)?)?,
                timeline: Timeline::known(column(1)?.parse().ok()?)?,
                lsn: column(2)?.parse().ok()?,
            })
        };
        identity().ok_or_else(|| self.unexpected("its answer to IDENTIFY_SYSTEM cannot be read"))
    }

    /// TIMELINE_HISTORY: the file's text.
    pub async fn timeline_history(
        &mut self,
        timeline: Timeline,
        deadline: Instant,
    ) -> Result<String, Error> {
        let rows = self
            .query(&format!("TIMELINE_HISTORY {}", timeline.0), deadline)
            .await?;
        let text = rows
            .into_iter()
            .next()
            .and_then(|row| row.into_iter().nth(1))
            .flatten();
        text.ok_or_else(|| self.unexpected("it sent no timeline history"))
    }

    /// A simple query. After an error that is not [`Error::Refused`] the connection is of no more use.
    async fn query(&mut self, sql: &str, deadline: Instant) -> Result<Vec<Row>, Error> {
        let mut packet = BytesMut::new();
        frontend::query(sql, &mut packet).map_err(|error| self.unexpected(&error.to_string()))?;
        self.bounded(deadline, async |client| {
            client.send(&packet).await?;
            client.answer().await
        })
        .await
    }

    async fn bounded<T>(
        &mut self,
        deadline: Instant,
        work: impl AsyncFnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let address = self.address.clone();
        match timeout_at(deadline, work(self)).await {
            Ok(result) => result,
            Err(_) => Err(Error::Unreachable {
                address,
                problem: "no answer in time".into(),
            }),
        }
    }

    async fn start(&mut self, credentials: &Credentials) -> Result<(), Error> {
        let user = user(credentials);
        let parameters = [
            ("user", user.as_str()),
            ("replication", "true"),
            ("application_name", "Patroni"),
        ];
        let mut packet = BytesMut::new();
        frontend::startup_message(parameters, &mut packet)
            .map_err(|error| self.unexpected(&error.to_string()))?;
        self.send(&packet).await?;
        self.authenticate(&user, credentials).await?;
        self.answer().await.map(drop)
    }

    async fn authenticate(&mut self, user: &str, credentials: &Credentials) -> Result<(), Error> {
        let password = || {
            let password = credentials
                .password
                .as_ref()
                .map(|password| password.expose().as_bytes());
            password.ok_or(())
        };
        let mut scram: Option<ScramSha256> = None;
        loop {
            let message = self.receive().await?;
            let needed = |_: ()| self.unexpected("it asks for a password, and none is configured");
            let mut packet = BytesMut::new();
            let written = match message {
                Message::AuthenticationOk => return Ok(()),
                Message::AuthenticationCleartextPassword => {
                    frontend::password_message(password().map_err(needed)?, &mut packet)
                }
                Message::AuthenticationMd5Password(body) => {
                    let password = password().map_err(needed)?;
                    let hash = md5_hash(user.as_bytes(), password, body.salt());
                    frontend::password_message(hash.as_bytes(), &mut packet)
                }
                Message::AuthenticationSasl(_) => {
                    let password = password().map_err(needed)?;
                    let client =
                        scram.insert(ScramSha256::new(password, ChannelBinding::unsupported()));
                    frontend::sasl_initial_response(SCRAM_SHA_256, client.message(), &mut packet)
                }
                Message::AuthenticationSaslContinue(body) => {
                    let client = scram
                        .as_mut()
                        .ok_or(())
                        .map_err(|_| self.unexpected("SASL out of turn"))?;
                    client
                        .update(body.data())
                        .map_err(|error| self.unexpected(&error.to_string()))?;
                    frontend::sasl_response(client.message(), &mut packet)
                }
                Message::AuthenticationSaslFinal(body) => {
                    let client = scram
                        .as_mut()
                        .ok_or(())
                        .map_err(|_| self.unexpected("SASL out of turn"))?;
                    client
                        .finish(body.data())
                        .map_err(|error| self.unexpected(&error.to_string()))?;
                    continue;
                }
                Message::ErrorResponse(body) => return Err(self.refused(&body).0),
                _ => {
                    return Err(
                        self.unexpected("it asks for a way to authenticate that is not supported")
                    );
                }
            };
            written.map_err(|error| self.unexpected(&error.to_string()))?;
            self.send(&packet).await?;
        }
    }

    /// Everything up to ReadyForQuery.
    async fn answer(&mut self) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            match self.receive().await? {
                Message::DataRow(body) => rows.push(self.row(&body)?),
                Message::ErrorResponse(body) => {
                    let (error, last) = self.refused(&body);
                    if last {
                        return Err(error);
                    }
                    failure = Some(error);
                }
                Message::ReadyForQuery(_) => return failure.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    fn row(&self, body: &DataRowBody) -> Result<Row, Error> {
        let text =
            |range: Range<usize>| String::from_utf8_lossy(&body.buffer()[range]).into_owned();
        let columns = body.ranges().map(|range| Ok(range.map(text))).collect();
        columns.map_err(|error| self.unexpected(&error.to_string()))
    }

    /// The error, and whether the server closes the connection with it.
    fn refused(&self, body: &ErrorResponseBody) -> (Error, bool) {
        let (mut code, mut problem, mut last) = (String::new(), String::new(), false);
        let mut fields = body.fields();
        while let Ok(Some(field)) = fields.next() {
            let value = String::from_utf8_lossy(field.value_bytes());
            match field.type_() {
                b'V' => last = value != "ERROR",
                b'C' => code = value.into_owned(),
                b'M' => problem = value.into_owned(),
                _ => {}
            }
        }
        (
            Error::Refused {
                address: self.address.clone(),
                code,
                problem,
            },
            last,
        )
    }

    async fn send(&mut self, packet: &[u8]) -> Result<(), Error> {
        let sent = self.stream.write_all(packet).await;
        sent.map_err(|error| self.unexpected(&error.to_string()))
    }

    async fn receive(&mut self) -> Result<Message, Error> {
        loop {
            match Message::parse(&mut self.buffer) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(error) => return Err(self.unexpected(&error.to_string())),
            }
            if self.buffer.len() > MESSAGE_LIMIT {
                return Err(self.unexpected("it sent a message that is too long"));
            }
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(self.unexpected("it closed the connection")),
                Ok(_) => {}
                Err(error) => return Err(self.unexpected(&error.to_string())),
            }
        }
    }

    fn unexpected(&self, problem: &str) -> Error {
        Error::Unreachable {
            address: self.address.clone(),
            problem: problem.to_owned(),
        }
    }
}
