//! Lanes of a group: their index in the list of rings, and the state and the summary in their first lane.

use tombolo_abi::{NO_GROUP, RingControl, RingEntry, RingKind};

use super::problem::{Place, Problem};
use super::ring::RingView;
use super::walk::RingPlace;

/// Sets the index of each ring among those that were listed, in which the lanes of a group are one.
pub(super) fn set_listed(views: &mut [RingView]) {
    let is_listed = |view: &&RingView| !view.entry.is_later_lane();
    let listed: Vec<_> =
        views.iter().filter(is_listed).map(|view| (view.ring, view.entry)).collect();
    for view in views {
        let is_of_it = |(ring, first): &(u32, RingEntry)| {
            let is_lane = |entry: &RingEntry| entry.ring_kind() == Some(RingKind::Lane);
            let is_its_lane = is_lane(first) && is_lane(&view.entry);
            *ring == view.ring || is_its_lane && first.group == view.entry.group
        };
        view.listed = listed.iter().position(is_of_it).map(|index| index as u32);
    }
}

/// Sets the group's state in all its lanes. Returns what is wrong with the summaries: bits that no lane has.
pub(super) fn check(
    views: &mut [RingView],
    offset_of: impl Fn(&RingView) -> Option<RingPlace>,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for first in 0..views.len() {
        let group = views[first].entry.group;
        let is_lane = |view: &RingView| {
            view.entry.ring_kind() == Some(RingKind::Lane) && view.entry.group == group
        };
        if group == NO_GROUP || !is_lane(&views[first]) || views[..first].iter().any(is_lane) {
            continue;
        }
        let Some(control) = views[first].control else { continue };
        let mut unknown = control.summary;
        for view in views[first..].iter_mut().filter(|view| is_lane(view)) {
            view.group_state = Some(control.state);
            let index = usize::from(view.entry.lane_index);
            if let Some(word) = unknown.get_mut(index / 64) {
                *word &= !(1 << (index % 64));
            }
        }
        problems.extend(unknown_bits(&views[first], &control, unknown, offset_of(&views[first])));
    }
    problems
}

fn unknown_bits(
    view: &RingView,
    control: &RingControl,
    unknown: [u64; 8],
    place: Option<RingPlace>,
) -> Option<Problem> {
    let word = unknown.iter().position(|bits| *bits != 0)?;
    let wanted = format!("bits of lanes only, without {:#x}", unknown[word]);
    let (what, found) = (format!("summary[{word}]"), format!("{:#x}", control.summary[word]));
    let problem = Problem::new("summary", Place::Control(view.ring), what, found, wanted);
    let offset = place.and_then(|place| place.word_offset("summary"));
    Some(problem.at(offset.map(|offset| offset + 8 * word as u64)))
}
