//! A region that is a channel: who has its two ends, what waits at each, and why one was closed.

use tombolo_abi::{CloseWord, Header, RingControl, SlotState, end_signals, name_bytes};

use super::endpoint::{EndpointView, Liveness};
use super::process::Process;
use super::ring::RingView;

/// The first minor version of the layout that has words for channels.
const FIRST_MINOR: u16 = 5;

/// The first that has signals and names of their ends.
const FIRST_WITH_SIGNALS: u16 = 6;

/// The two ends of a region that is a channel.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelView {
    /// Ends 0 and 1. Each sends on the ring of its number, and receives on the other's.
    pub ends: [ChannelEnd; 2],
}

/// One end of a channel.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelEnd {
    /// What has become of it.
    pub state: EndState,
    /// The process id that its last owner stored; 0 if it had none.
    pub pid: u32,
    /// The process with that id.
    pub process: Process,
    /// Messages that were not read at this end; `None` if they could not be counted.
    pub unread: Option<u64>,
    /// Calls of this end that wait for a reply, as its owner stored it; 0 if it is not open.
    pub calls: u64,
    /// Its name, with U+FFFD for what is no UTF-8; empty if it has none. It may hold characters that a terminal acts on.
    pub name: String,
    /// Its user signals: bit 0 is `USER_0`.
    pub user_signals: u8,
    /// Why it was closed, if it is over, or if that is unknown, and a reason was stored.
    pub reason: Option<StoredReason>,
}

/// What has become of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndState {
    /// No process had it yet.
    NotTaken,
    /// A process has it.
    Open,
    /// It is a handle that some process holds, or that lies in a message.
    OnItsWay,
    /// Its owner closed it.
    Closed,
    /// Its owner died.
    Died,
    /// It was a handle, and what held that dropped it or died.
    DroppedOnItsWay,
    /// The file system doesn't say, or the file is a copy.
    Unknown,
}

/// The reason that an end was closed with. Its owner wrote all of it; none of it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredReason {
    /// The code.
    pub code: u32,
    /// The text, with U+FFFD for what is no UTF-8. It may hold characters that a terminal acts on.
    pub text: String,
}

impl EndState {
    /// Whether an end like this one is closed for good, and with it the channel.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Closed | Self::Died | Self::DroppedOnItsWay)
    }
}

impl ChannelView {
    /// Whether an end is closed for good: then nothing more is sent, and what was sent may still be read.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ends.iter().any(|end| end.state.is_over())
    }

    /// The channel of which these are the rings and the endpoints, in the order of their slots.
    pub(super) fn find(
        header: &Header,
        rings: &[RingView],
        endpoints: &[EndpointView],
    ) -> Option<Self> {
        let [one, other] = rings else { return None };
        if header.ring_count != 2 || !one.entry.is_half_of_channel(1) {
            return None;
        }
        if (one.ring, other.ring) != (0, 1) || !other.entry.is_half_of_channel(0) {
            return None;
        }
        let end = |out, into| ChannelEnd::between(header, (out, into), endpoints);
        Some(Self { ends: [end(one, other), end(other, one)] })
    }
}

impl ChannelEnd {
    /// The end that sends on `out` and receives on `into`.
    fn between(
        header: &Header,
        (out, into): (&RingView, &RingView),
        endpoints: &[EndpointView],
    ) -> Self {
        let endpoint = |slot: u16| {
            let index = endpoints.binary_search_by_key(&slot.into(), |endpoint| endpoint.slot);
            index.ok().and_then(|index| endpoints.get(index))
        };
        let slots = [endpoint(out.entry.tx_slot_first), endpoint(into.entry.rx_slot)];
        let owned = slots.into_iter().flatten().next();
        let [_, receiver] = slots;
        let object = receiver.filter(|_| header.minor >= FIRST_WITH_SIGNALS);
        let name = object.map_or(&[][..], |receiver| name_bytes(&receiver.fields.name));
        let signals = object.map_or(0, |receiver| receiver.fields.signals & end_signals::USER);
        let state = state_of(slots);
        let has_words = header.minor >= FIRST_MINOR;
        let calls = into.control.filter(|_| has_words && state == EndState::Open);
        let is_ended = state.is_over() || state == EndState::Unknown;
        let closed = out.control.filter(|_| has_words && is_ended);
        Self {
            state,
            pid: owned.map_or(0, |endpoint| endpoint.fields.pid),
            process: owned.map_or(Process::Unknown, |endpoint| endpoint.process.clone()),
            unread: into.depth.and_then(|depth| depth.msgs),
            calls: calls.map_or(0, |control| control.calls),
            name: String::from_utf8_lossy(name).into_owned(),
            user_signals: (signals >> end_signals::USER.trailing_zeros()) as u8,
            reason: closed.as_ref().and_then(StoredReason::find),
        }
    }
}

/// What has become of the end with these two slots. One description holds the lock bytes of both, so they differ
/// only for moments.
fn state_of(slots: [Option<&EndpointView>; 2]) -> EndState {
    let used = || slots.into_iter().flatten();
    let has = |liveness| used().any(|endpoint| endpoint.liveness == liveness);
    let is_handle = used().any(|endpoint| endpoint.state() == Some(SlotState::InTransit));
    if has(Liveness::Unknown) {
        EndState::Unknown
    } else if has(Liveness::Dead) {
        if is_handle { EndState::DroppedOnItsWay } else { EndState::Died }
    } else if has(Liveness::Left) {
        EndState::Closed
    } else if has(Liveness::Alive) {
        if is_handle { EndState::OnItsWay } else { EndState::Open }
    } else {
        EndState::NotTaken
    }
}

impl StoredReason {
    fn find(control: &RingControl) -> Option<Self> {
        let CloseWord { code, text_len } = CloseWord::from_word(control.close)?;
        let text = control.close_text.get(..text_len.into()).unwrap_or(&control.close_text);
        Some(Self { code, text: String::from_utf8_lossy(text).into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use tombolo_abi::Slot;

    use super::*;

    fn slot(state: SlotState, liveness: Liveness) -> EndpointView {
        let mut fields: Slot = bytemuck::Zeroable::zeroed();
        (fields.state, fields.incarnation) = (state as u32, 1);
        EndpointView { slot: 0, fields, torn: false, liveness, process: Process::Unknown }
    }

    #[test]
    fn an_end_is_what_its_two_slots_say_also_between_two_steps_of_its_owner() {
        use Liveness::{Alive, Dead, Left, Unknown};
        use SlotState::{Attached, Attaching, Detaching, Free, InTransit};
        let cases = [
            (None, None, EndState::NotTaken),
            (Some((Attaching, Alive)), None, EndState::Open),
            (Some((Attached, Alive)), Some((Attached, Alive)), EndState::Open),
            (Some((InTransit, Alive)), Some((Attached, Alive)), EndState::OnItsWay),
            (Some((InTransit, Alive)), Some((InTransit, Alive)), EndState::OnItsWay),
            (Some((InTransit, Dead)), Some((InTransit, Dead)), EndState::DroppedOnItsWay),
            (Some((Free, Left)), Some((Detaching, Alive)), EndState::Closed),
            (Some((Free, Left)), Some((Free, Left)), EndState::Closed),
            (Some((Free, Left)), Some((Detaching, Dead)), EndState::Died),
            (Some((Attached, Dead)), Some((Attached, Dead)), EndState::Died),
            (Some((Attached, Dead)), Some((Attached, Unknown)), EndState::Unknown),
        ];
        for (sender, receiver, expected) in cases {
            let [one, other] =
                [sender, receiver].map(|it| it.map(|(state, liveness)| slot(state, liveness)));
            assert_eq!(
                state_of([one.as_ref(), other.as_ref()]),
                expected,
                "{sender:?} {receiver:?}"
            );
        }
    }
}
