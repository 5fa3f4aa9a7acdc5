//! tarpc over a Unix socket with its serde transport and bincode. Requests and replies are bytes.
//!
//! The client is spawned, as tarpc documents it. The server reads requests from its channel and sends
//! responses into it by hand, the third and shortest of the three ways that tarpc documents: the
//! other two spawn a task for each request.

use std::pin::Pin;

use ::tarpc::context;
use ::tarpc::serde_transport::{Transport, unix};
use ::tarpc::server::BaseChannel;
use ::tarpc::tokio_serde::formats::Bincode;
use ::tarpc::{ClientMessage, Response, client};
use futures::{SinkExt, StreamExt};
use serde_bytes::ByteBuf;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tombolo_benches::Registry;
use tombolo_benches::system::{CALL_HEAD, CallingSystem, Failure, Look, Meeting};

use crate::{meet, runtime, wait};

/// Adds it.
pub(super) fn register(registry: Registry) -> Registry {
    registry.calling::<Tarpc>()
}

/// What is served: bytes for bytes.
#[::tarpc::service]
trait Exchange {
    /// Gives the reply to a request.
    async fn exchange(request: ByteBuf) -> ByteBuf;
}

type FromClient = ClientMessage<ExchangeRequest>;
type FromServer = Response<ExchangeResponse>;
type ServerTransport =
    Transport<UnixStream, FromClient, FromServer, Bincode<FromClient, FromServer>>;
type Channel = BaseChannel<ExchangeRequest, ExchangeResponse, ServerTransport>;

struct Tarpc;

impl CallingSystem for Tarpc {
    const NAME: &'static str = "tarpc";
    type Caller = Caller;
    type Answerer = Answerer;

    fn caller(meeting: &Meeting) -> Result<Caller, Failure> {
        let runtime = runtime::new()?;
        let entered = runtime.enter();
        let connect = || unix::connect(meet::path(meeting), Bincode::default);
        let transport =
            wait::for_peer("the server", || runtime.block_on(async { connect().await.ok() }))?;
        let client = ExchangeClient::new(client::Config::default(), transport).spawn();
        drop(entered);
        runtime::wait_as(meeting, &runtime);
        Ok(Caller { client, runtime })
    }

    fn answerer(meeting: &Meeting) -> Result<Answerer, Failure> {
        let runtime = runtime::new()?;
        let channel = runtime.block_on(async {
            let mut incoming = unix::listen(meet::path(meeting), Bincode::default).await?;
            let transport = incoming.next().await.ok_or("the listener is gone")??;
            Ok::<_, Failure>(Box::pin(Channel::with_defaults(transport)))
        })?;
        runtime::wait_as(meeting, &runtime);
        Ok(Answerer { channel, runtime })
    }

    #[inline]
    fn call(caller: &mut Caller, request: &[u8], look: &mut impl Look) -> Result<(), Failure> {
        let Caller { client, runtime } = caller;
        let reply = runtime.block_on(async {
            client.exchange(context::current(), ByteBuf::from(request)).await
        })?;
        look.at_slice(&reply[CALL_HEAD..]);
        Ok(())
    }

    #[inline]
    fn answer(answerer: &mut Answerer, reply: &[u8], look: &mut impl Look) -> Result<(), Failure> {
        let Answerer { channel, runtime } = answerer;
        runtime.block_on(async {
            let tracked = channel.next().await.ok_or("the client is gone")??;
            let ExchangeRequest::Exchange { request } = &tracked.request.message;
            look.at_slice(&request[CALL_HEAD..]);
            let message = Ok(ExchangeResponse::Exchange(ByteBuf::from(reply)));
            Ok(channel.send(Response { request_id: tracked.request.id, message }).await?)
        })
    }
}

struct Caller {
    client: ExchangeClient,
    runtime: Runtime,
}

struct Answerer {
    channel: Pin<Box<Channel>>,
    runtime: Runtime,
}
