//! Finds what can be taken out of a source file.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Block, Expr, Item, Meta, Pat, ReturnType, Stmt, Type, UnOp};

use crate::flags::{FlagSet, is_constant, last_two};
use crate::site::{Edit, Mutant};

/// Methods that ask a closure whether.
const ASKING: [&str; 14] = [
    "all",
    "any",
    "extract_if",
    "filter",
    "find",
    "is_none_or",
    "is_ok_and",
    "is_some_and",
    "partition_point",
    "position",
    "retain",
    "skip_while",
    "take_if",
    "take_while",
];

/// Which values a condition is to be changed to.
#[derive(Clone, Copy)]
struct Values {
    to_true: bool,
    to_false: bool,
}

const BOTH: Values = Values { to_true: true, to_false: true };
const TRUE: Values = Values { to_true: true, to_false: false };
const FALSE: Values = Values { to_true: false, to_false: true };

/// What the value at the end of a block is.
#[derive(Clone, Copy, PartialEq)]
enum Tail {
    /// Nothing: it may be left out.
    Unit,
    /// `Result<(), _>`: success can be claimed instead.
    Checked,
    Bool,
}

/// Collects the mutants of one file.
pub(crate) struct Finder<'a> {
    file: usize,
    path: &'a str,
    source: &'a str,
    flag_sets: &'a [FlagSet],
    /// Uses of flag sets that are constants, by their place in `flag_sets`.
    pub(crate) uses: Vec<(usize, Range<usize>)>,
    scope: Vec<String>,
    /// Variables that get their first value by a statement of its own.
    late: HashSet<String>,
    pub(crate) mutants: Vec<Mutant>,
    seen: HashSet<(Range<usize>, String)>,
    counts: HashMap<String, u32>,
}

impl<'a> Finder<'a> {
    pub(crate) fn new(file: usize, path: &'a str, source: &'a str, sets: &'a [FlagSet]) -> Self {
        Self {
            file,
            path,
            source,
            flag_sets: sets,
            uses: Vec::new(),
            scope: Vec::new(),
            late: HashSet::new(),
            mutants: Vec::new(),
            seen: HashSet::new(),
            counts: HashMap::new(),
        }
    }

    fn text(&self, node: &impl Spanned) -> String {
        shortened(&self.source[node.span().byte_range()])
    }

    fn add(&mut self, what: String, line: usize, edits: Vec<Edit>) {
        if !self.seen.insert((edits[0].span.clone(), what.clone())) {
            return;
        }
        let function = self.scope.join("::");
        let nth = self.counts.entry(format!("{function} {what}")).or_insert(0);
        *nth += 1;
        let (file, nth) = (self.path.to_owned(), *nth);
        self.mutants.push(Mutant { file, function, what, nth, edits, line });
    }

    /// A mutant that writes around `node`.
    fn wrap(&mut self, node: &impl Spanned, what: String, before: &str, after: &str) {
        let span = node.span();
        let edit = Edit::around(self.file, span.byte_range(), before, after);
        self.add(what, span.start().line, vec![edit]);
    }

    /// A condition, and the conditions that it is made of.
    fn condition(&mut self, expr: &Expr, values: Values) {
        let text = self.text(expr);
        let mut change = |values: Values| {
            if values.to_true {
                self.wrap(expr, format!("`{text}` is true"), "(crate::mutants::is($) || (", "))");
            }
            if values.to_false {
                self.wrap(expr, format!("`{text}` is false"), "(!crate::mutants::is($) && (", "))");
            }
        };
        match expr {
            Expr::Paren(inner) => self.condition(&inner.expr, values),
            Expr::Let(inner) => self.visit_expr(&inner.expr),
            Expr::Unary(unary) if matches!(unary.op, UnOp::Not(_)) => {
                let swapped = Values { to_true: values.to_false, to_false: values.to_true };
                self.condition(&unary.expr, swapped);
            }
            Expr::Binary(binary) if matches!(binary.op, BinOp::And(_) | BinOp::Or(_)) => {
                let is_and = matches!(binary.op, BinOp::And(_));
                let (to_true, to_false) =
                    (values.to_true && !is_and, values.to_false && is_and && !has_let(expr));
                change(Values { to_true, to_false });
                let one = if is_and { TRUE } else { FALSE };
                self.condition(&binary.left, one);
                self.condition(&binary.right, one);
            }
            Expr::Binary(binary) => {
                change(values);
                self.bound(binary);
                visit::visit_expr_binary(self, binary);
            }
            Expr::Lit(_) => {}
            Expr::Macro(call) if !call.mac.path.is_ident("matches") => {}
            Expr::Macro(_) => change(values),
            _ => {
                change(values);
                visit::visit_expr(self, expr);
            }
        }
    }

    /// The bound of a comparison, in or out.
    fn bound(&mut self, binary: &syn::ExprBinary) {
        let (is, other) = match binary.op {
            BinOp::Lt(_) => ("<", "<="),
            BinOp::Le(_) => ("<=", "<"),
            BinOp::Gt(_) => (">", ">="),
            BinOp::Ge(_) => (">=", ">"),
            _ => return,
        };
        let after = format!(
            ")) {{ (l, r) => if crate::mutants::is($) {{ l {other} r }} else {{ l {is} r }} }})"
        );
        let mut edit = Edit::around(self.file, binary.span().byte_range(), "(match (&(", &after);
        edit.replaced.push((binary.op.span().byte_range(), "), &(".into()));
        let what = format!("`{}` with {other}", self.text(binary));
        self.add(what, binary.span().start().line, vec![edit]);
    }

    /// Whether a block is entered whose condition is `expr`.
    fn entry(&mut self, expr: &Expr, values: Values) {
        if has_let(expr) {
            let what = format!("`{}` is false", self.text(expr));
            self.wrap(expr, what, "!crate::mutants::is($) && ", "");
        }
        self.condition(expr, values);
    }

    /// Whether without `stmt` a variable might have no value, so that nothing compiles.
    fn is_first_value(&self, stmt: &Stmt) -> bool {
        matches!(stmt, Stmt::Expr(Expr::Assign(assign), _) if self.late.contains(&self.text(&assign.left)))
    }

    fn leave_out(&mut self, node: &impl Spanned) {
        let what = format!("without `{}`", self.text(node));
        self.wrap(node, what, "if !crate::mutants::is($) { ", " }");
    }

    /// What the end of a block gives.
    fn tail(&mut self, expr: &Expr, tail: Tail) {
        match expr {
            Expr::If(one) => {
                self.tail_of(&one.then_branch, tail);
                if let Some((_, other)) = &one.else_branch {
                    self.tail(other, tail);
                }
            }
            Expr::Match(one) => one.arms.iter().for_each(|arm| self.tail(&arm.body, tail)),
            Expr::Block(one) => self.tail_of(&one.block, tail),
            Expr::Unsafe(one) => self.tail_of(&one.block, tail),
            Expr::Call(call) if self.text(&call.func) == "Ok" || self.text(&call.func) == "Err" => {
            }
            Expr::Call(_) | Expr::MethodCall(_) if tail == Tail::Checked => {
                let what = format!("Ok instead of `{}`", self.text(expr));
                self.wrap(expr, what, "(if crate::mutants::is($) { Ok(()) } else { ", " })");
            }
            Expr::Call(_) | Expr::MethodCall(_) | Expr::Assign(_) if tail == Tail::Unit => {
                self.leave_out(expr);
            }
            Expr::Call(_)
            | Expr::MethodCall(_)
            | Expr::Macro(_)
            | Expr::Unary(_)
            | Expr::Field(_)
                if tail == Tail::Bool =>
            {
                self.condition(expr, BOTH);
            }
            _ => {}
        }
    }

    fn tail_of(&mut self, block: &Block, tail: Tail) {
        if let Some(Stmt::Expr(expr, None)) = block.stmts.last() {
            self.tail(expr, tail);
        }
    }

    fn function(&mut self, sig: &syn::Signature, attrs: &[syn::Attribute], block: &Block) {
        if sig.constness.is_some() || is_test(attrs) {
            return;
        }
        self.scope.push(sig.ident.to_string());
        self.late.clear();
        let tail = match &sig.output {
            ReturnType::Default => Some(Tail::Unit),
            ReturnType::Type(_, result) => match self.text(result.as_ref()).as_str() {
                "bool" => Some(Tail::Bool),
                text if text.contains("Result<()") => Some(Tail::Checked),
                _ => None,
            },
        };
        if let Some(tail) = tail {
            self.tail_of(block, tail);
        }
        self.visit_block(block);
        self.scope.pop();
    }

    /// Flags named where they are used, each left out.
    fn flag(&mut self, expr: &Expr) {
        let what = format!("without the flag `{}`", self.text(expr));
        let text = self.source[expr.span().byte_range()].to_owned();
        self.wrap(expr, what, "crate::mutants::without($, ", &format!(", {text})"));
    }

    fn flags_of(&mut self, expr: &Expr) {
        match expr {
            Expr::Binary(binary) if matches!(binary.op, BinOp::BitOr(_)) => {
                self.flags_of(&binary.left);
                self.flags_of(&binary.right);
            }
            Expr::Path(path) if is_constant(&path.path) => self.flag(expr),
            _ => {}
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_type(&mut self, _: &'ast Type) {}
    fn visit_pat(&mut self, _: &'ast Pat) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_item_enum(&mut self, _: &'ast syn::ItemEnum) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_generics(&mut self, _: &'ast syn::Generics) {}

    fn visit_file(&mut self, file: &'ast syn::File) {
        if !is_test(&file.attrs) {
            visit::visit_file(self, file);
        }
    }

    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(module) if is_test(&module.attrs) => {}
            _ => visit::visit_item(self, item),
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        let of_trait = item.trait_.as_ref().and_then(|(path, _)| path.segments.last());
        if of_trait.is_some_and(|name| name.ident == "Debug" || name.ident == "Display") {
            return;
        }
        let name = match item.self_ty.as_ref() {
            Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()),
            _ => None,
        };
        self.scope.push(name.unwrap_or_else(|| self.text(item.self_ty.as_ref())));
        visit::visit_item_impl(self, item);
        self.scope.pop();
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.scope.push(item.ident.to_string());
        visit::visit_item_trait(self, item);
        self.scope.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.attrs, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, &item.attrs, &item.block);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, &item.attrs, block);
        }
    }

    fn visit_stmt(&mut self, stmt: &'ast Stmt) {
        match stmt {
            Stmt::Local(local) if local.init.is_none() => {
                self.late.insert(self.text(&local.pat).trim_start_matches("mut ").to_owned());
            }
            stmt if self.is_first_value(stmt) => {}
            Stmt::Expr(
                Expr::Call(_)
                | Expr::MethodCall(_)
                | Expr::Try(_)
                | Expr::Assign(_)
                | Expr::Unsafe(_),
                Some(_),
            ) => self.leave_out(stmt),
            Stmt::Expr(Expr::Binary(_), Some(_)) => self.leave_out(stmt), // `+=` and the like
            Stmt::Expr(Expr::ForLoop(_), _) => self.leave_out(stmt),
            Stmt::Expr(expr @ (Expr::If(_) | Expr::Match(_)), Some(_)) => {
                self.tail(expr, Tail::Unit)
            }
            Stmt::Local(local) if matches!(local.pat, Pat::Wild(_)) => self.leave_out(stmt),
            _ => {}
        }
        visit::visit_stmt(self, stmt);
    }

    fn visit_block(&mut self, block: &'ast Block) {
        let rest = block.stmts.split_last().map_or(&[][..], |(_, rest)| rest);
        for stmt in rest {
            if let Stmt::Expr(expr @ (Expr::If(_) | Expr::Match(_)), None) = stmt {
                self.tail(expr, Tail::Unit);
            }
        }
        visit::visit_block(self, block);
    }

    fn visit_expr(&mut self, expr: &'ast Expr) {
        match expr {
            Expr::If(one) => {
                self.entry(&one.cond, BOTH);
                self.visit_block(&one.then_branch);
                if let Some((_, other)) = &one.else_branch {
                    self.visit_expr(other);
                }
            }
            Expr::While(one) => {
                self.entry(&one.cond, FALSE);
                self.visit_block(&one.body);
            }
            Expr::Binary(binary) => match binary.op {
                BinOp::BitOr(_) => {
                    self.flags_of(expr);
                    visit::visit_expr(self, expr);
                }
                BinOp::And(_)
                | BinOp::Or(_)
                | BinOp::Eq(_)
                | BinOp::Ne(_)
                | BinOp::Lt(_)
                | BinOp::Le(_)
                | BinOp::Gt(_)
                | BinOp::Ge(_) => self.condition(expr, BOTH),
                _ => visit::visit_expr(self, expr),
            },
            Expr::Macro(call) if call.mac.path.is_ident("matches") => self.condition(expr, BOTH),
            Expr::Match(one) => self.arms(one),
            Expr::MethodCall(call) => self.method(call),
            Expr::Repeat(one) => self.visit_expr(&one.expr),
            Expr::Path(path) => {
                let of_flags =
                    last_two(&path.path).is_some_and(|(kind, _)| kind.ends_with("Flags"));
                if of_flags && is_constant(&path.path) {
                    self.flag(expr);
                }
                let name = path.path.segments.last().map(|last| last.ident.to_string());
                let is_named = |set: &FlagSet| {
                    Some(&set.name) == name.as_ref() && (set.is_shared || set.file == self.file)
                };
                for (index, _) in self.flag_sets.iter().enumerate().filter(|(_, set)| is_named(set))
                {
                    self.uses.push((index, expr.span().byte_range()));
                }
            }
            _ => visit::visit_expr(self, expr),
        }
    }
}

impl Finder<'_> {
    fn arms(&mut self, one: &syn::ExprMatch) {
        self.visit_expr(&one.expr);
        for (index, arm) in one.arms.iter().enumerate() {
            if let Pat::Guard(guarded) = &arm.pat {
                self.entry(&guarded.guard, BOTH);
            } else if cases(&arm.pat).iter().all(|case| {
                let later = one.arms[index + 1..].iter().flat_map(|later| cases(&later.pat));
                later.into_iter().any(|later| covers(later, case))
            }) {
                let what = format!("without the arm `{}`", self.text(&arm.pat));
                self.wrap(&arm.pat, what, "", " if !crate::mutants::is($)");
            }
            self.visit_expr(&arm.body);
        }
    }

    fn method(&mut self, call: &syn::ExprMethodCall) {
        let name = call.method.to_string();
        if ASKING.contains(&name.as_str()) {
            for argument in &call.args {
                if let Expr::Closure(closure) = argument
                    && !matches!(closure.body.as_ref(), Expr::Block(_))
                {
                    self.condition(&closure.body, BOTH);
                }
            }
        }
        if call.args.len() == 1 && (name == "min" || name == "max") {
            let before = format!("crate::mutants::{name}($, ");
            let span = call.span();
            let mut edit = Edit::around(self.file, span.byte_range(), &before, "");
            let dot = call.dot_token.span().byte_range().start;
            let open = call.paren_token.span.open().byte_range().end;
            edit.replaced.push((dot..open, ", ".into()));
            let what = format!("without .{name} in `{}`", self.text(call));
            self.add(what, span.start().line, vec![edit]);
        }
        visit::visit_expr_method_call(self, call);
    }
}

/// Whether a condition binds something.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) if matches!(binary.op, BinOp::And(_)) => {
            has_let(&binary.left) || has_let(&binary.right)
        }
        _ => false,
    }
}

/// Whether something is there for tests only, or is one.
fn is_test(attrs: &[syn::Attribute]) -> bool {
    attrs.iter().any(|attr| match &attr.meta {
        Meta::List(list) => {
            attr.path().is_ident("cfg")
                && list.tokens.to_string().split(' ').any(|word| word == "test")
        }
        meta => meta.path().is_ident("test"),
    })
}

fn cases(pat: &Pat) -> Vec<&Pat> {
    match pat {
        Pat::Or(or) => or.cases.iter().flat_map(cases).collect(),
        _ => vec![pat],
    }
}

/// Whether all that `case` matches is matched by `later`, as far as the text tells.
fn covers(later: &Pat, case: &Pat) -> bool {
    match (later, case) {
        (Pat::Wild(_), _) => true,
        (Pat::Ident(ident), _) if ident.subpat.is_none() => {
            ident.ident.to_string().starts_with(|first: char| first.is_lowercase() || first == '_')
        }
        (Pat::TupleStruct(later), Pat::TupleStruct(case)) => {
            later.path == case.path
                && later.elems.len() == case.elems.len()
                && later.elems.iter().zip(&case.elems).all(|(later, case)| covers(later, case))
        }
        (Pat::Tuple(later), Pat::Tuple(case)) => {
            later.elems.len() == case.elems.len()
                && later.elems.iter().zip(&case.elems).all(|(later, case)| covers(later, case))
        }
        _ => false,
    }
}

/// The text in one line, without its middle where it is long.
fn shortened(text: &str) -> String {
    let mut line: Vec<_> = Vec::new();
    for part in text.lines() {
        line.extend(part.split("//").next().unwrap_or("").split_whitespace());
    }
    let line = line.join(" ");
    let chars: Vec<char> = line.chars().collect();
    if chars.len() <= 120 {
        return line;
    }
    let part = |range: Range<usize>| chars[range].iter().collect::<String>();
    format!("{} ... {}", part(0..80), part(chars.len() - 35..chars.len()))
}
