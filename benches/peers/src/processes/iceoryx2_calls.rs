//! iceoryx2's request-response with loaned slices of bytes.
//!
//! It has no waiting of its own. Busy waiting asks the server, or the pending response, again and
//! again. Sleeping adds an event service for each side beside it, as its example for requests with
//! events does: each message is followed by a notification, and each side waits for the
//! notification before it looks.

use ::iceoryx2::active_request::ActiveRequest;
use ::iceoryx2::node::Node;
use ::iceoryx2::pending_response::PendingResponse;
use ::iceoryx2::port::client::Client;
use ::iceoryx2::port::listener::Listener;
use ::iceoryx2::port::notifier::Notifier;
use ::iceoryx2::port::server::Server;
use ::iceoryx2::prelude::*;
use ::iceoryx2::response::Response;
use ::iceoryx2::service::builder::request_response;
use ::iceoryx2::service::port_factory::event;
use tombolo_benches::Registry;
use tombolo_benches::system::{CALL_HEAD, CallingSystem, Failure, Look, Meeting, Waiting};

use super::iceoryx2_node::{self, node, service_name};
use crate::wait;

type Builder = request_response::Builder<[u8], (), [u8], (), ipc::Service>;
type Events = event::PortFactory<ipc::Service>;
type Request = ActiveRequest<ipc::Service, [u8], (), [u8], ()>;
type Pending = PendingResponse<ipc::Service, [u8], (), [u8], ()>;

/// Adds it.
pub(super) fn register(registry: Registry) -> Registry {
    registry.calling::<Iceoryx2Calls>()
}

struct Iceoryx2Calls;

impl CallingSystem for Iceoryx2Calls {
    const NAME: &'static str = "iceoryx2";
    type Caller = Caller;
    type Answerer = Answerer;

    fn prepare(_meeting: &Meeting) -> Result<(), Failure> {
        iceoryx2_node::remove_memory_of_the_dead();
        Ok(())
    }

    fn caller(meeting: &Meeting) -> Result<Caller, Failure> {
        let node = node(meeting)?;
        let listener = listener(&node, meeting, Side::Caller)?;
        let service = wait::for_peer("the service", || builder(&node, meeting).ok()?.open().ok())?;
        let client = service
            .client_builder()
            .initial_max_slice_len(meeting.size)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()?;
        wait::for_peer("the server", || {
            (service.dynamic_config().number_of_servers() > 0).then_some(())
        })?;
        let notifier = notifier(&node, meeting, Side::Answerer)?;
        Ok(Caller { client, waking: Waking { listener, notifier }, _node: node })
    }

    /// One of everything, which is a little faster than its defaults. A payload whose type has the size
    /// would make no difference.
    fn answerer(meeting: &Meeting) -> Result<Answerer, Failure> {
        let node = node(meeting)?;
        let listener = listener(&node, meeting, Side::Answerer)?;
        let notifier = notifier(&node, meeting, Side::Caller)?;
        let service = builder(&node, meeting)?
            .enable_safe_overflow_for_requests(false)
            .enable_safe_overflow_for_responses(false)
            .max_clients(1)
            .max_servers(1)
            .max_loaned_requests(1)
            .max_active_requests_per_client(1)
            .max_response_buffer_size(1)
            .max_borrowed_responses_per_pending_response(1)
            .create()?;
        let server = service
            .server_builder()
            .initial_max_slice_len(meeting.size)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()?;
        Ok(Answerer { server, waking: Waking { listener, notifier }, _node: node })
    }

    #[inline]
    fn call(caller: &mut Caller, request: &[u8], look: &mut impl Look) -> Result<(), Failure> {
        let loaned = caller.client.loan_slice_uninit(request.len())?;
        let pending = loaned.write_from_slice(request).send()?;
        caller.waking.notify()?;
        let reply = caller.reply(&pending)?;
        look.at_slice(&reply.payload()[CALL_HEAD..]);
        Ok(())
    }

    #[inline]
    fn answer(answerer: &mut Answerer, reply: &[u8], look: &mut impl Look) -> Result<(), Failure> {
        let request = answerer.request()?;
        look.at_slice(&request.payload()[CALL_HEAD..]);
        request.loan_slice_uninit(reply.len())?.write_from_slice(reply).send()?;
        answerer.waking.notify()
    }

    fn clean_up(meeting: &Meeting) {
        iceoryx2_node::remove_memory_of(meeting);
    }
}

fn builder(node: &Node<ipc::Service>, meeting: &Meeting) -> Result<Builder, Failure> {
    let line = Alignment::new(64).ok_or("64 is an alignment")?;
    let builder = node.service_builder(&service_name(meeting)?).request_response::<[u8], [u8]>();
    Ok(builder.request_payload_alignment(line).response_payload_alignment(line))
}

/// Which side is woken by an event service.
#[derive(Clone, Copy)]
enum Side {
    Caller,
    Answerer,
}

fn events(node: &Node<ipc::Service>, meeting: &Meeting, woken: Side) -> Result<Events, Failure> {
    let side = match woken {
        Side::Caller => "caller",
        Side::Answerer => "answerer",
    };
    let name = format!("{}-{side}", meeting.unique).as_str().try_into()?;
    Ok(node.service_builder(&name).event().open_or_create()?)
}

fn listener(
    node: &Node<ipc::Service>,
    meeting: &Meeting,
    woken: Side,
) -> Result<Option<Listener<ipc::Service>>, Failure> {
    if meeting.waiting == Waiting::Busy {
        return Ok(None);
    }
    Ok(Some(events(node, meeting, woken)?.listener_builder().create()?))
}

fn notifier(
    node: &Node<ipc::Service>,
    meeting: &Meeting,
    woken: Side,
) -> Result<Option<Notifier<ipc::Service>>, Failure> {
    if meeting.waiting == Waiting::Busy {
        return Ok(None);
    }
    Ok(Some(events(node, meeting, woken)?.notifier_builder().create()?))
}

/// What a side that sleeps is woken by, and what it wakes the other with. Nothing if both look all
/// the time.
struct Waking {
    listener: Option<Listener<ipc::Service>>,
    notifier: Option<Notifier<ipc::Service>>,
}

impl Waking {
    #[inline]
    fn notify(&self) -> Result<(), Failure> {
        if let Some(notifier) = &self.notifier {
            notifier.notify()?;
        }
        Ok(())
    }

    /// Gives what `look` finds as soon as it finds something.
    #[inline]
    fn wait_for<T>(
        &self,
        mut look: impl FnMut() -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        let Some(listener) = &self.listener else {
            return wait::for_message(|| look().transpose());
        };
        loop {
            listener.blocking_wait(|_| {})?;
            if let Some(found) = look()? {
                return Ok(found);
            }
        }
    }
}

struct Caller {
    client: Client<ipc::Service, [u8], (), [u8], ()>,
    waking: Waking,
    _node: Node<ipc::Service>,
}

impl Caller {
    #[inline]
    fn reply(&self, pending: &Pending) -> Result<Response<ipc::Service, [u8], ()>, Failure> {
        self.waking.wait_for(|| Ok(pending.receive()?))
    }
}

struct Answerer {
    server: Server<ipc::Service, [u8], (), [u8], ()>,
    waking: Waking,
    _node: Node<ipc::Service>,
}

impl Answerer {
    #[inline]
    fn request(&self) -> Result<Request, Failure> {
        self.waking.wait_for(|| Ok(self.server.receive()?))
    }
}
