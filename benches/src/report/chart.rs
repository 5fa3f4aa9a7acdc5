//! A chart of rates and round trips by size.

use std::collections::BTreeMap;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::row::Row;
use crate::system::Failure;
use crate::test::Test;

const SIZE: (u32, u32) = (1100, 440);
/// Where the names begin.
const LEGEND_X: i32 = 890;
const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
const FAINT: RGBColor = RGBColor(225, 225, 225);
const FLOOR: RGBColor = RGBColor(150, 150, 150);
const OURS: [RGBColor; 4] =
    [RGBColor(190, 20, 50), RGBColor(235, 120, 40), RGBColor(240, 170, 60), RGBColor(130, 30, 110)];
const OTHERS: [RGBColor; 8] = [
    RGBColor(30, 110, 190),
    RGBColor(20, 150, 120),
    RGBColor(110, 90, 200),
    RGBColor(90, 140, 40),
    RGBColor(0, 160, 200),
    RGBColor(120, 100, 80),
    RGBColor(60, 70, 110),
    RGBColor(160, 160, 40),
];

/// Those that would hide others, lying where they do, and threads of one process.
const NOT_DRAWN: [&str; 10] = [
    "tombolo-spsc-in-place",
    "tombolo-spsc-64m",
    "fresh-line-bare",
    "line",
    "rtrb",
    "rtrb-chunks",
    "disruptor",
    "crossbeam-queue",
    "crossbeam",
    "kanal",
];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, LogCoord<f64>>>;
/// Values of a system by the place of their size on the axis.
type Lines<'a> = BTreeMap<&'a str, Vec<(f64, f64)>>;

/// One of the two panels.
struct Panel {
    title: &'static str,
    test: Test,
}

const PANELS: [Panel; 2] = [
    Panel { title: "One way, busy-poll: messages a second", test: Test::OneWayBusy },
    Panel { title: "There and back, busy-poll: nanoseconds", test: Test::RoundTripBusy },
];

/// Draws the systems of this run, and of other files those that it doesn't have.
pub(crate) fn draw(path: &Path, rows: &[Row], files: &[Vec<Row>]) -> Result<(), Failure> {
    let panels = PANELS.map(|panel| (lines(&panel, rows, files), panel));
    let styles = styles(panels.iter().flat_map(|(lines, _)| lines.keys().copied()));
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (charts, _) = root.split_horizontally(LEGEND_X - 20);
    for (area, (lines, panel)) in charts.split_evenly((1, 2)).iter().zip(&panels) {
        draw_panel(area, panel, lines, &styles)?;
    }
    draw_legend(&root, &styles)?;
    root.present()?;
    Ok(())
}

fn sizes() -> &'static [usize] {
    Test::OneWayBusy.sizes()
}

fn lines<'a>(panel: &Panel, rows: &'a [Row], files: &'a [Vec<Row>]) -> Lines<'a> {
    let of_test = |row: &&Row| row.test == panel.test.name();
    let mut lines = Lines::new();
    let is_ours = |row: &&Row| rows.iter().filter(of_test).any(|ours| ours.system == row.system);
    let others = files.iter().flatten().filter(|row| !is_ours(row));
    for row in rows.iter().chain(others).filter(of_test) {
        if let Some(place) = sizes().iter().position(|size| *size as u64 == row.size) {
            let (points, place) = (lines.entry(&*row.system).or_default(), place as f64);
            if points.iter().all(|point: &(f64, f64)| point.0 != place) {
                points.push((place, row.median)); // the first file that has it
            }
        }
    }
    lines.values_mut().for_each(|points| points.sort_by(|a, b| a.0.total_cmp(&b.0)));
    lines.retain(|name, points| points.len() > 1 && !NOT_DRAWN.contains(name));
    lines
}

/// Floors are grey, ours are warm, the others cold.
fn styles<'a>(names: impl Iterator<Item = &'a str>) -> Vec<(&'a str, ShapeStyle)> {
    let mut names: Vec<&str> = names.collect();
    names.sort_by_key(|name| (is_floor(name), !name.starts_with("tombolo"), *name));
    names.dedup();
    let (mut ours, mut others) = (OURS.iter().cycle(), OTHERS.iter().cycle());
    let style = |name: &str| match name {
        name if is_floor(name) => FLOOR.stroke_width(2),
        name if name.starts_with("tombolo") => ours.next().unwrap_or(&RED).stroke_width(3),
        _ => others.next().unwrap_or(&BLUE).stroke_width(2),
    };
    let styles: Vec<ShapeStyle> = names.iter().copied().map(style).collect();
    names.into_iter().zip(styles).collect()
}

fn draw_panel(
    area: &Area,
    panel: &Panel,
    lines: &Lines,
    styles: &[(&str, ShapeStyle)],
) -> Result<(), Failure> {
    let values = || lines.values().flatten().map(|point| point.1);
    let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    if low > high {
        return Ok(()); // nothing to draw
    }
    let last = sizes().len() as f64 - 1.0;
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT, 17).into_font().color(&INK))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(52)
        .build_cartesian_2d(
            -0.1..last + 0.1,
            (decade(low, f64::floor)..decade(high, f64::ceil)).log_scale(),
        )?;
    draw_axes(&mut chart)?;
    for (name, style) in styles {
        if let Some(points) = lines.get(name) {
            chart.draw_series(LineSeries::new(points.iter().copied(), *style))?;
            let dot = |point| Circle::new(point, 3, style.filled());
            chart.draw_series(points.iter().copied().map(dot))?;
        }
    }
    Ok(())
}

fn draw_axes(chart: &mut Chart) -> Result<(), Failure> {
    let size_at = |place: &f64| {
        let is_there = (place - place.round()).abs() < 1e-6;
        let size = sizes().get(place.round().max(0.0) as usize).filter(|_| is_there);
        size.map_or_else(String::new, |size| short(*size as f64, 1024.0, &["", "Ki"]))
    };
    chart
        .configure_mesh()
        .x_labels(sizes().len())
        .x_label_formatter(&size_at)
        .x_desc("bytes of a message")
        .y_label_formatter(&|value| short(*value, 1000.0, &["", "k", "M", "G"]))
        .label_style((FONT, 13).into_font().color(&INK))
        .axis_style(FLOOR)
        .bold_line_style(FAINT)
        .light_line_style(TRANSPARENT)
        .draw()?;
    Ok(())
}

fn draw_legend(root: &Area, styles: &[(&str, ShapeStyle)]) -> Result<(), Failure> {
    for (index, (name, style)) in styles.iter().enumerate() {
        let y = 56 + 21 * index as i32;
        root.draw(&PathElement::new(vec![(LEGEND_X, y), (LEGEND_X + 22, y)], *style))?;
        root.draw(&Circle::new((LEGEND_X + 11, y), 3, style.filled()))?;
        let font = (FONT, 14).into_font().color(&INK);
        let text = if is_floor(name) { format!("{name} (floor)") } else { name.to_string() };
        root.draw(&Text::new(text, (LEGEND_X + 30, y - 7), font))?;
    }
    Ok(())
}

fn is_floor(name: &str) -> bool {
    PANELS.iter().any(|panel| panel.test.floor() == Some(name))
}

/// The power of ten next to it.
fn decade(value: f64, round: impl Fn(f64) -> f64) -> f64 {
    10f64.powf(round(value.log10()))
}

/// With the prefix that leaves the fewest digits.
fn short(mut value: f64, step: f64, prefixes: &[&str]) -> String {
    let mut prefixes = prefixes.iter().peekable();
    while value >= step && prefixes.len() > 1 {
        value /= step;
        prefixes.next();
    }
    format!("{value}{}", prefixes.peek().map_or("", |prefix| prefix))
}
