//! Mutants: what each changes, and how the source says it.

use std::ops::Range;

/// One change of the source, compiled in beside the original and off until it is named.
#[derive(Debug)]
pub(crate) struct Mutant {
    /// Path in the tree.
    pub(crate) file: String,
    /// The function, with its type; or the constant.
    pub(crate) function: String,
    /// What is changed, by the source's own text.
    pub(crate) what: String,
    /// Which of those that read alike.
    pub(crate) nth: u32,
    /// What is written into the source for it.
    pub(crate) edits: Vec<Edit>,
    /// Line of the first edit.
    pub(crate) line: usize,
}

impl Mutant {
    /// What a list names it by; the same as long as the text is.
    pub(crate) fn key(&self) -> String {
        let nth = if self.nth > 1 { format!(" #{}", self.nth) } else { String::new() };
        format!("{} | {} | {}{nth}", self.file, self.function, self.what)
    }
}

/// Text written around a span, or instead of it.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    pub(crate) file: usize,
    pub(crate) span: Range<usize>,
    /// `$` stands for the mutant's number.
    pub(crate) before: String,
    pub(crate) after: String,
    /// Spans inside that are replaced, with what.
    pub(crate) replaced: Vec<(Range<usize>, String)>,
}

impl Edit {
    pub(crate) fn around(file: usize, span: Range<usize>, before: &str, after: &str) -> Self {
        Self { file, span, before: before.into(), after: after.into(), replaced: Vec::new() }
    }
}

/// A source file with `edits` (each with its mutant's number) made, and where each now lies.
pub(crate) struct Rewritten {
    pub(crate) text: String,
    pub(crate) places: Vec<Place>,
}

/// A mutant's span in the rewritten text.
pub(crate) struct Place {
    pub(crate) id: u32,
    pub(crate) whole: Range<usize>,
    /// What was written before the original.
    pub(crate) before: Range<usize>,
}

/// A piece of text that goes into the source.
struct Piece {
    at: usize,
    /// Closing texts come first, then replacements, then opening ones; inner ones nearer to their source.
    rank: (u8, usize, usize),
    skip: usize,
    text: String,
    edit: usize,
}

/// Makes the edits. Spans are nested or apart.
pub(crate) fn rewrite(source: &str, edits: &[(u32, &Edit)]) -> Rewritten {
    let mut pieces = Vec::new();
    for (order, (id, edit)) in edits.iter().enumerate() {
        let text = |template: &str| template.replace('$', &id.to_string());
        let (start, end) = (edit.span.start, edit.span.end);
        let len = end - start;
        let reverse = usize::MAX - order;
        let opening = (2, usize::MAX - len, order);
        let closing = (0, len, reverse);
        pieces.push(Piece {
            at: start,
            rank: opening,
            skip: 0,
            text: text(&edit.before),
            edit: order,
        });
        pieces.push(Piece {
            at: end,
            rank: closing,
            skip: 0,
            text: text(&edit.after),
            edit: order,
        });
        for (span, template) in &edit.replaced {
            let (at, skip) = (span.start, span.len());
            pieces.push(Piece { at, rank: (1, 0, 0), skip, text: text(template), edit: order });
        }
    }
    pieces.sort_by_key(|piece| (piece.at, piece.rank));
    let mut places: Vec<_> =
        edits.iter().map(|(id, _)| Place { id: *id, whole: 0..0, before: 0..0 }).collect();
    let (mut text, mut done) = (String::new(), 0);
    for piece in pieces {
        text.push_str(&source[done..piece.at]);
        done = piece.at + piece.skip;
        let from = text.len();
        text.push_str(&piece.text);
        let place = &mut places[piece.edit];
        match piece.rank.0 {
            2 => (place.whole.start, place.before) = (from, from..text.len()),
            0 => place.whole.end = text.len(),
            _ => {}
        }
    }
    text.push_str(&source[done..]);
    Rewritten { text, places }
}
