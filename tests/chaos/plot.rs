//! A plot of one run, as SVG: deliveries over time, and the faults.

use std::fmt::Write;
use std::time::Duration;

use crate::books::{How, Moment};
use crate::schedule::Kind;
use crate::stage::Run;

/// Draws the deliveries of each quarter of a second, live and fetched. Bands behind them show the
/// faults of servers; lanes below them show the faults of clients.
pub fn draw(run: &Run) -> String {
    let bins = bins(run);
    let most = bins.iter().map(|[live, fetched]| live + fetched).max().unwrap_or(0).max(1);
    let top = step(most) * most.div_ceil(step(most));
    let seconds = run.length.as_secs_f64();
    let labels = labels(run, seconds);
    let rows = labels.iter().map(|label| label.row + 1).max().unwrap_or(0);
    let head = TITLE + ROW * rows as f64;
    let plot = Plot { seconds, most: top as f64, top: head, bottom: head + PLOT };
    let height = plot.bottom + FOOT;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#333\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    plot.title(run, &mut svg);
    plot.bands(&labels, &mut svg);
    plot.axes(step(most), &mut svg);
    plot.bars(&bins, &mut svg);
    plot.lanes(run, &mut svg);
    svg.push_str("</svg>\n");
    svg
}

struct Plot {
    /// The number of seconds across the width.
    seconds: f64,
    /// The value at the top of the plot.
    most: f64,
    /// The place of the plot, below the title and the names of the faults.
    top: f64,
    bottom: f64,
}

/// The name of a fault of a server, above the band of its time.
struct Label {
    name: String,
    colour: &'static str,
    from: f64,
    to: f64,
    begin: f64,
    row: usize,
}

impl Label {
    fn width(&self) -> f64 {
        LETTER * self.name.chars().count() as f64
    }
}

/// The faults of servers. Their names have as many rows as keep them apart.
fn labels(run: &Run, seconds: f64) -> Vec<Label> {
    let of_servers = run.caused.iter().filter(|caused| !caused.kind.is_of_client());
    let mut labels: Vec<Label> = of_servers
        .map(|caused| {
            let nodes: Vec<usize> = caused.parts.iter().filter_map(|part| part.party.node()).collect();
            let name = match nodes[..] {
                [node] => format!("{} ({})", caused.kind, node + 1),
                _ => caused.kind.to_string(),
            };
            let (from, to) = (x(caused.begun.as_secs_f64(), seconds), x(caused.over.as_secs_f64(), seconds));
            Label { name, colour: caused.kind.colour(), from, to, begin: from, row: 0 }
        })
        .collect();
    give_rows(&mut labels);
    labels
}

/// Gives each name the lowest row that is free there.
fn give_rows(labels: &mut [Label]) {
    // Where the last name of each row ends.
    let mut rows: Vec<f64> = Vec::new();
    for label in labels {
        // A name near the right edge ends at the edge instead.
        label.begin = label.from.min(WIDTH - 4.0 - label.width());
        let free = rows.iter().position(|end| *end < label.begin);
        label.row = free.unwrap_or(rows.len());
        if free.is_none() {
            rows.push(0.0);
        }
        rows[label.row] = rows[label.row].max(label.begin + label.width() + 8.0);
    }
}

fn x(at: f64, seconds: f64) -> f64 {
    LEFT + (WIDTH - LEFT - RIGHT) * at / seconds
}

/// The live and fetched deliveries in each bin.
fn bins(run: &Run) -> Vec<[usize; 2]> {
    let index = |at: Moment| (at.as_millis() / BIN.as_millis()) as usize;
    let mut bins = vec![[0; 2]; index(run.length) + 1];
    for arrival in run.books.iter().flat_map(|books| &books.arrivals) {
        let kind = usize::from(matches!(arrival.how, How::Fetched(_)));
        if let Some(bin) = bins.get_mut(index(arrival.at)) {
            bin[kind] += 1;
        }
    }
    bins
}

/// A round distance between two lines of the grid.
fn step(most: usize) -> usize {
    let steps = [10, 20, 25, 50, 100, 200, 250, 500, 1_000, 2_000, 2_500, 5_000, 10_000];
    steps.into_iter().find(|step| most.div_ceil(*step) <= 5).unwrap_or(most)
}

impl Plot {
    fn x(&self, at: f64) -> f64 {
        x(at, self.seconds)
    }

    fn y(&self, count: f64) -> f64 {
        self.bottom - (self.bottom - self.top) * count / self.most
    }

    fn title(&self, run: &Run, svg: &mut String) {
        let came: usize = run.books.iter().map(|books| books.arrivals.len()).sum();
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"24\" font-size=\"16\" font-weight=\"bold\">Deliveries per {} ms while parts of the \
             cluster fail</text>\n<text x=\"{LEFT}\" y=\"42\" fill=\"#666\">{} clients, 3 nodes, {}, two nginx; {came} deliveries; \
             seed {}</text>",
            BIN.as_millis(),
            run.books.len(),
            run.deployment,
            run.seed
        );
        let legend = WIDTH - RIGHT - 190.0;
        for (number, (colour, name)) in [(LIVE, "live"), (FETCHED, "fetched")].into_iter().enumerate() {
            let x = legend + 90.0 * number as f64;
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"24\">{name}</text>",
                x + 18.0
            );
        }
    }

    /// Faults of servers as bands with their names above.
    fn bands(&self, labels: &[Label], svg: &mut String) {
        for Label { name, colour, from, to, begin, row } in labels {
            let y = self.top - 8.0 - ROW * *row as f64;
            let width = (to - from).max(1.5);
            let _ = writeln!(
                svg,
                "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\" \
                 fill-opacity=\"0.22\"/>\n<text x=\"{begin:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{name}</text>",
                y + 3.0,
                self.bottom - y - 3.0
            );
        }
    }

    fn axes(&self, step: usize, svg: &mut String) {
        let bottom = self.bottom;
        let right = WIDTH - RIGHT;
        let mut count = 0;
        while count as f64 <= self.most {
            let y = self.y(count as f64);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ccc\" stroke-width=\"0.5\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{count}</text>",
                LEFT - 6.0,
                y + 4.0
            );
            count += step;
        }
        let every = [5.0, 10.0, 30.0, 60.0, 300.0, 600.0].into_iter().find(|every| self.seconds / every <= 20.0);
        let every = every.unwrap_or(1_800.0);
        let mut at = 0.0;
        while at <= self.seconds {
            let x = self.x(at);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\" stroke=\"#333\"/><text x=\"{x:.1}\" y=\"{}\" \
                 text-anchor=\"middle\">{at:.0} s</text>",
                bottom + 4.0,
                bottom + 18.0
            );
            at += every;
        }
        let _ = writeln!(svg, "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{bottom}\" y2=\"{bottom}\" stroke=\"#333\"/>");
    }

    fn bars(&self, bins: &[[usize; 2]], svg: &mut String) {
        let bottom = self.bottom;
        // One path for each colour keeps the file small.
        let (mut live_path, mut fetched_path) = (String::new(), String::new());
        let width = self.x(BIN.as_secs_f64()) - self.x(0.0);
        for (number, [live, fetched]) in bins.iter().enumerate() {
            let x = self.x(number as f64 * BIN.as_secs_f64());
            let (middle, top) = (self.y(*live as f64), self.y((live + fetched) as f64));
            if *live > 0 {
                let _ = write!(live_path, "M{x:.1} {bottom}V{middle:.1}h{width:.2}V{bottom}z");
            }
            if *fetched > 0 {
                let _ = write!(fetched_path, "M{x:.1} {middle:.1}V{top:.1}h{width:.2}V{middle:.1}z");
            }
        }
        let _ =
            writeln!(svg, "<path d=\"{live_path}\" fill=\"{LIVE}\"/>\n<path d=\"{fetched_path}\" fill=\"{FETCHED}\"/>");
    }

    fn lanes(&self, run: &Run, svg: &mut String) {
        for (number, kind) in [Kind::BlackHole, Kind::Reset, Kind::StopsReading].into_iter().enumerate() {
            let y = self.bottom + 32.0 + 20.0 * number as f64;
            let colour = kind.colour();
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" font-size=\"11\" fill=\"{colour}\">{}</text>",
                LEFT - 6.0,
                y + 10.0,
                kind.to_string().trim_start_matches("client's ").trim_start_matches("client ")
            );
            for caused in run.caused.iter().filter(|caused| caused.kind == kind) {
                let (from, to) = (self.x(caused.begun.as_secs_f64()), self.x(caused.over.as_secs_f64()));
                let width = (to - from).max(2.0);
                let _ = writeln!(
                    svg,
                    "<rect x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"12\" fill=\"{colour}\" \
                     fill-opacity=\"0.45\"/>"
                );
            }
        }
    }
}

const BIN: Duration = Duration::from_millis(250);

const WIDTH: f64 = 1_200.0;
const LEFT: f64 = 110.0;
const RIGHT: f64 = 20.0;
/// The height of the title, of a row of names, of the plot, and of what is below it.
const TITLE: f64 = 65.0;
const ROW: f64 = 15.0;
const PLOT: f64 = 290.0;
const FOOT: f64 = 100.0;
/// The width of a letter of a name, at most on average.
const LETTER: f64 = 7.0;

const LIVE: &str = "#5dade2";
const FETCHED: &str = "#e67e22";

#[cfg(test)]
mod tests {
    use super::*;

    fn label(name: &str, from: f64, to: f64) -> Label {
        Label { name: name.to_owned(), colour: LIVE, from, to, begin: from, row: 0 }
    }

    /// Where most faults are at once there are more names than a few rows have room for.
    #[test]
    fn no_name_covers_another() {
        let mut labels: Vec<Label> = (0..12)
            .map(|number| f64::from(number) * 30.0 + 700.0)
            .map(|from| label("node killed while MariaDB is killed (2)", from, from + 20.0))
            .collect();
        labels.insert(0, label("Redis frozen", 120.0, 300.0));
        labels.push(label("nginx killed", WIDTH - 25.0, WIDTH - RIGHT));
        give_rows(&mut labels);
        for (number, one) in labels.iter().enumerate() {
            assert!(one.begin >= 0.0 && one.begin + one.width() <= WIDTH, "{} leaves the picture", one.name);
            for other in &labels[number + 1..] {
                let apart = one.begin + one.width() < other.begin || other.begin + other.width() < one.begin;
                assert!(one.row != other.row || apart, "{} and {} in row {}", one.begin, other.begin, one.row);
            }
        }
        assert_eq!(labels[0].row, 0, "names that are far apart share a row");
        assert_eq!(labels[1].row, 0);
    }
}
