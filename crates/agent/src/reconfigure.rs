//! Takes a new local configuration to where that opens files or resolves names: the log and the REST API. In order,
//! and beside the loop, which no disk and no name service may hold up.

use primacy_config::local::{Log, RestApi};
use primacy_net::HttpClient;
use tokio::sync::{mpsc, oneshot};

use crate::api::ApiServer;
use crate::jobs::chain;
use crate::logging::LogHandle;

/// What is to be done.
pub(crate) enum Order {
    /// Take these settings.
    Settings {
        log: Box<Log>,
        restapi: Box<RestApi>,
        peers: HttpClient,
    },
    /// Answer no more requests.
    Stop(oneshot::Sender<()>),
}

/// Obeys until told to stop.
pub(crate) async fn obey(
    mut orders: mpsc::UnboundedReceiver<Order>,
    mut api: ApiServer,
    logging: LogHandle,
) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Settings {
                log,
                restapi,
                peers,
            } => {
                let logging = logging.clone();
                let opened = tokio::task::spawn_blocking(move || logging.reconfigure(&log));
                if let Ok(Err(error)) = opened.await {
                    tracing::error!("the log section cannot be used: {error}");
                }
                if let Err(error) = api.reconfigure(&restapi, peers).await {
                    tracing::error!("the REST API keeps its old settings: {}", chain(&error));
                }
            }
            Order::Stop(done) => {
                api.stop().await;
                let _ = done.send(());
                return;
            }
        }
    }
}
