//! shmipc, whose messages lie in a memory file while an eventfd wakes the other side: the mode that
//! its documentation recommends for small messages.

use std::os::unix::net::SocketAddr;

use ::shmipc::Listener;
use ::shmipc::buffer::BufferReader;
use ::shmipc::config::{Config, SizePercentPair};
use ::shmipc::session::{SessionManager, SessionManagerConfig};
use ::shmipc::stream::Stream;
use ::shmipc::transport::{DefaultUnixConnect, DefaultUnixListen};
use tokio::runtime::Runtime;
use tombolo_benches::Registry;
use tombolo_benches::system::{CALL_HEAD, CallingSystem, Failure, Look, Meeting};

use crate::{meet, runtime, wait};

/// Adds it.
pub(super) fn register(registry: Registry) -> Registry {
    registry.calling::<Shmipc>()
}

/// The first bytes on a stream, which only exists for the server once something has come on it.
const GREETING: &[u8] = b"hello";

struct Shmipc;

impl CallingSystem for Shmipc {
    const NAME: &'static str = "shmipc";
    type Caller = Caller;
    type Answerer = Answerer;

    fn caller(meeting: &Meeting) -> Result<Caller, Failure> {
        let runtime = runtime::new()?;
        let sessions = wait::for_peer("the server", || {
            let config = SessionManagerConfig::new().with_config(config(meeting));
            let address = address(meeting).ok()?;
            runtime.block_on(SessionManager::new(config, DefaultUnixConnect, address)).ok()
        })?;
        let mut stream = sessions.get_stream()?;
        runtime.block_on(write(&mut stream, GREETING))?;
        runtime::wait_as(meeting, &runtime);
        Ok(Caller { stream, runtime, _sessions: sessions })
    }

    fn answerer(meeting: &Meeting) -> Result<Answerer, Failure> {
        let runtime = runtime::new()?;
        let (stream, listener) = runtime.block_on(async {
            let mut listener =
                Listener::new(DefaultUnixListen, address(meeting)?, config(meeting)).await?;
            let mut stream = listener.accept().await?;
            stream.read_exact_bytes(GREETING.len()).await?;
            stream.recv_buf().release_previous_read();
            Ok::<_, Failure>((stream, listener))
        })?;
        runtime::wait_as(meeting, &runtime);
        Ok(Answerer { stream, runtime, _listener: listener })
    }

    #[inline]
    fn call(caller: &mut Caller, request: &[u8], look: &mut impl Look) -> Result<(), Failure> {
        let Caller { stream, runtime, .. } = caller;
        runtime.block_on(async {
            write(stream, request).await?;
            look.at_slice(&stream.read_exact_bytes(request.len()).await?[CALL_HEAD..]);
            stream.release_read_and_reuse();
            Ok(())
        })
    }

    #[inline]
    fn answer(answerer: &mut Answerer, reply: &[u8], look: &mut impl Look) -> Result<(), Failure> {
        let Answerer { stream, runtime, .. } = answerer;
        runtime.block_on(async {
            look.at_slice(&stream.read_exact_bytes(reply.len()).await?[CALL_HEAD..]);
            stream.recv_buf().release_previous_read();
            write(stream, reply).await
        })
    }
}

async fn write(stream: &mut Stream, message: &[u8]) -> Result<(), Failure> {
    stream.write_bytes(message)?;
    Ok(stream.flush(false).await?)
}

/// Buffers of the size of messages, as many as the harness's ring would hold.
fn config(meeting: &Meeting) -> Config {
    let size = meeting.size as u32;
    Config {
        share_memory_buffer_cap: meeting.capacity as u32,
        buffer_slice_sizes: vec![SizePercentPair { size, percent: 100 }],
        ..Config::default().with_v4_eventfd()
    }
}

fn address(meeting: &Meeting) -> Result<SocketAddr, Failure> {
    Ok(SocketAddr::from_pathname(meet::path(meeting))?)
}

struct Caller {
    stream: Stream,
    runtime: Runtime,
    _sessions: SessionManager<DefaultUnixConnect>,
}

struct Answerer {
    stream: Stream,
    runtime: Runtime,
    _listener: Listener,
}
