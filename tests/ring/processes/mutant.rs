//! How each mutant changes a step of the real code.

use tombolo_abi::wake;

use super::super::super::Word;
use super::super::recording::{Access, Order};
use super::actor::Actor;
use super::call::Call;
use super::locked::Stage;
use super::memory::cell;
use super::receiver;
use super::setup::{Mutant, Setup};
use super::state::State;

/// What is done instead of a step.
pub(super) enum Altered {
    /// This.
    Access(Access),
    /// Nothing, but it is answered.
    Answer(u64),
}

/// What `index` does where the code does `access`.
pub(super) fn alter(setup: &Setup, state: &mut State, index: usize, access: Access) -> Altered {
    match &state.threads[index].actor.clone() {
        Actor::Locked(locked) => alter_locked(setup, state, index, locked.stage, access),
        Actor::Single(_) => match (setup.mutant, access) {
            (Mutant::NoProducerFence, Access::Fence(_)) => Altered::Answer(0),
            (Mutant::NoZeroing, Access::Store(Word::Data(_), 0, _)) => Altered::Answer(0),
            _ => alter_blocked(setup, state, index, access),
        },
        Actor::Receiver(receiver) => match (setup.mutant, access) {
            (Mutant::NoArmingFence, Access::Fence(_)) => Altered::Answer(0),
            (Mutant::NoFreeingFence, Access::Fence(_)) => Altered::Answer(0),
            (Mutant::SuccessorWithoutNews, Access::Load(Word::TxWake, _))
                if !receiver.has_freed =>
            {
                Altered::Answer(0)
            }
            (Mutant::SilentWhenEmpty, Access::Load(Word::TxWake, _))
                if receiver.stage == receiver::Stage::Take =>
            {
                Altered::Answer(0)
            }
            _ => Altered::Access(access),
        },
        Actor::Lane(_) => match (setup.mutant, access) {
            (Mutant::NoProducerFence, Access::Fence(_)) => Altered::Answer(0),
            _ => Altered::Access(access),
        },
        Actor::Lanes(_) | Actor::Reactor(_) | Actor::Armer | Actor::Done => Altered::Access(access),
    }
}

fn alter_locked(
    setup: &Setup,
    state: &mut State,
    index: usize,
    stage: Stage,
    access: Access,
) -> Altered {
    let is_transfer = matches!(stage, Stage::Judge(_));
    match (setup.mutant, access) {
        (Mutant::NoRoll, Access::Load(Word::Data(_), _)) => Altered::Answer(0),
        (Mutant::NoZeroing, Access::Store(Word::Data(_), 0, _)) => Altered::Answer(0),
        (Mutant::PlainUnlock, Access::Store(Word::Lock, value, _)) => {
            Altered::Access(Access::Store(Word::Lock, value, Order::Relaxed))
        }
        (Mutant::SilentTransfer, Access::Load(Word::RxWake, _)) if is_transfer => {
            Altered::Answer(0)
        }
        _ => alter_blocked(setup, state, index, access),
    }
}

fn alter_blocked(setup: &Setup, state: &mut State, index: usize, access: Access) -> Altered {
    let without_count = |word: u64| word & u64::from(wake::COUNT_ONE - 1);
    let changed = match (setup.mutant, access) {
        (Mutant::NoArmCount, Access::CompareExchange(Word::TxWake, current, new)) => {
            Access::CompareExchange(Word::TxWake, current, without_count(new))
        }
        (Mutant::NoArmCount, Access::Call(Call::Wait(word, expected, ends))) => {
            Access::Call(Call::Wait(word, without_count(expected.into()) as u32, ends))
        }
        (Mutant::LookBeforeArming, Access::Load(Word::TxWake, _)) => {
            let head = cell(Word::Head, setup.capacity).expect("a cell");
            state.threads[index].early = Some(state.shared.get(head));
            access
        }
        (Mutant::LookBeforeArming, Access::Load(Word::Head, _)) => {
            match state.threads[index].early {
                Some(found) => return Altered::Answer(found),
                None => access,
            }
        }
        _ => access,
    };
    Altered::Access(changed)
}
