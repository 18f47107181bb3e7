//! Results as one HTML page that loads nothing else.

use std::fmt::Write as _;
use std::io;

use plotters::prelude::*;

use crate::compare::{LETTERS, Ratio, median, titles};
use crate::environment::Environment;
use crate::report::{self, About, Run, completeness, number, percentiles, shown};
use crate::tally::SLICE;

const COLOURS: [RGBColor; 2] = [RGBColor(31, 119, 180), RGBColor(214, 90, 20)];
const GRID: RGBAColor = RGBAColor(128, 128, 128, 0.25);
const SIZE: (u32, u32) = (860, 340);

/// Colours are variables, so that a dark page only needs a second set of them. The plots are drawn
/// in black on a transparent ground; the rules for `svg` replace the black.
const STYLE: &str = ":root{color-scheme:light dark;--ink:#222;--paper:#fff;--line:#ddd;--code:#f3f3f3;--bad:#b3261e;--warn:#8a5300;--a:#1f77b4;--b:#d65a14}\
    @media(prefers-color-scheme:dark){:root{--ink:#ddd;--paper:#16181c;--line:#3a3d44;--code:#23262c;--bad:#ff8a80;--warn:#ffb74d;--a:#6cb4e8;--b:#ff9a5c}}\
    body{font:16px/1.5 system-ui,sans-serif;max-width:880px;margin:2em auto;padding:0 1em;color:var(--ink);background:var(--paper)}\
    .wide{overflow-x:auto}table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid var(--line);text-align:left}\
    td.n{text-align:right;font-variant-numeric:tabular-nums}.bad{color:var(--bad)}.warn{color:var(--warn)}\
    .summary{font-size:1.15em}.legend{margin:0}.legend span{margin-right:1.5em}.legend span::before{content:'\\2014';font-weight:bold;margin-right:.4em}\
    .a::before{color:var(--a)}.b::before{color:var(--b)}\
    svg{max-width:100%;height:auto}svg text{fill:var(--ink);font-size:13px}svg [stroke='#000000']{stroke:var(--ink)}\
    svg [stroke='#1F77B4']{stroke:var(--a)}svg [stroke='#D65A14']{stroke:var(--b)}\
    code{background:var(--code);padding:.1em .3em;overflow-wrap:anywhere}pre{overflow:auto;background:var(--code);padding:1em}\
    @media(max-width:600px){body{margin:1em auto}td,th{padding:.2em .4em}h1{font-size:1.4em}}";

pub(crate) fn page(about: &About, runs: &[Run]) -> io::Result<String> {
    let mark = if runs.iter().all(Run::is_complete) { "" } else { "INCOMPLETE: " };
    let title = format!("{mark}raybench: {}", about.workload);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><style>{STYLE}</style>\n<h1{}>{title}</h1>\n<p class=\"summary\">{}</p>\n<p><code>{}</code></p>\n",
        if mark.is_empty() { "" } else { " class=\"bad\"" },
        escape(&summary(runs)),
        escape(&about.command)
    );
    table(&mut page, runs);
    for run in runs {
        outcome(&mut page, run);
    }
    let times: Vec<_> = runs.iter().map(Run::times).collect();
    for (n, (of, _)) in times.first().into_iter().flatten().enumerate() {
        let of_each = times.iter().map(|times| times.get(n).map_or_else(Vec::new, |(_, times)| percentiles(times)));
        let lines: Vec<_> = of_each.collect();
        if lines.iter().any(|line| !line.is_empty()) {
            let names = runs.iter().map(|run| run.name.clone());
            let _ = writeln!(page, "<h2>Time of each {of}</h2>\n{}{}", legend(names), plot_times(&lines)?);
        }
    }
    if runs.iter().flat_map(|run| &run.rounds).any(|round| round.slices.whole().len() > 1) {
        let what = match about.workload {
            "login" | "resume" => "logins/s",
            "offline" => "messages fetched/s",
            "ramp" => "replies/s",
            _ => "deliveries/s",
        };
        let names = runs.iter().map(|run| match run.rounds.len() {
            1 => run.name.clone(),
            several => format!("{}, {several} rounds", run.name),
        });
        let _ = writeln!(page, "<h2>Throughput over time</h2>\n{}{}", legend(names), plot_slices(runs, what)?);
    }
    settings(&mut page, about);
    let json = serde_json::to_string_pretty(&report::json(about, runs)).map_err(io::Error::other)?;
    let _ = writeln!(page, "<details><summary>All numbers</summary><pre>{}</pre></details>", escape(&json));
    Ok(page)
}

/// The most important line: the first figure of each target, and what did not arrive.
fn summary(runs: &[Run]) -> String {
    let Some((title, unit)) = titles(runs).into_iter().next() else {
        return "No round was completed.".to_owned();
    };
    let of_run = |run: &Run| {
        let lost = run.counts().lost;
        let lost = if lost == 0 { "nothing lost".to_owned() } else { format!("{} lost", number(lost as f64)) };
        format!("{}: {} {unit}, {lost}", run.name, shown(median(&run.values(&title))))
    };
    let mut text = runs.iter().map(of_run).collect::<Vec<_>>().join("; ");
    if let (2, Some(ratio)) = (runs.len(), Ratio::of(runs, &title)) {
        let _ = write!(text, "; B/A: {:.2}", ratio.median);
    }
    text
}

/// The counts of one target, and its errors.
fn outcome(page: &mut String, run: &Run) {
    let class = if run.is_complete() { "" } else { " class=\"bad\"" };
    let _ = write!(page, "<p{class}>{}: {}", escape(&run.name), completeness(&run.counts()));
    if run.is_interrupted() {
        page.push_str("<br>Interrupted before its end");
    }
    if let Some(trouble) = run.first_trouble() {
        let _ = write!(page, "<br>The first trouble: {}", escape(trouble));
    }
    for warning in run.warnings() {
        let _ = write!(page, "<br><span class=\"warn\">Warning: {}</span>", escape(&warning));
    }
    page.push_str("</p>\n");
}

/// The legend above a plot: which curve belongs to which name.
fn legend(names: impl Iterator<Item = String>) -> String {
    let mut text = "<p class=\"legend\">".to_owned();
    for (class, name) in ["a", "b"].iter().zip(names) {
        let _ = write!(text, "<span class=\"{class}\">{}</span>", escape(&name));
    }
    text.push_str("</p>\n");
    text
}

/// Medians over the rounds; with two targets also the ratios of the second to the first.
fn table(page: &mut String, runs: &[Run]) {
    let is_comparison = runs.len() == 2;
    page.push_str("<div class=\"wide\"><table><tr><th></th>");
    for (letter, run) in LETTERS.iter().zip(runs) {
        let before = if is_comparison { format!("{letter}: ") } else { String::new() };
        let _ = write!(page, "<th>{before}{}</th>", escape(&run.name));
    }
    page.push_str("<th>unit</th>");
    page.push_str(if is_comparison { "<th>B/A</th><th>spread</th></tr>\n" } else { "</tr>\n" });
    for (title, unit) in titles(runs) {
        let _ = write!(page, "<tr><td>{title}</td>");
        for run in runs {
            let _ = write!(page, "<td class=\"n\">{}</td>", shown(median(&run.values(&title))));
        }
        let _ = write!(page, "<td>{unit}</td>");
        if is_comparison {
            let cells = Ratio::of(runs, &title)
                .map_or(["-".to_owned(), "-".to_owned()], |ratio| [format!("{:.2}", ratio.median), ratio.spread()]);
            let _ = write!(page, "<td class=\"n\">{}</td><td class=\"n\">{}</td>", cells[0], cells[1]);
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
    if is_comparison {
        page.push_str(
            "<p>Columns A and B are medians over the rounds. B/A is the median of the ratios of the single rounds, the spread the \
             least and the greatest of them.</p>\n",
        );
    }
}

/// All options, and the software and machine of the run.
fn settings(page: &mut String, about: &About) {
    let Environment { version, date, kernel, cpu, cores } = &about.environment;
    page.push_str("<h2>Settings</h2>\n<div class=\"wide\"><table>\n");
    let cores = cores.to_string();
    let environment = [("raybench", *version), ("date", date), ("kernel", kernel), ("CPU", cpu), ("cores", &cores)];
    let settings = about.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in environment.into_iter().chain(settings) {
        let _ = writeln!(page, "<tr><td>{}</td><td>{}</td></tr>", escape(name), escape(value));
    }
    page.push_str("</table></div>\n");
}

fn plot_times(of_each: &[Vec<(f64, f64)>]) -> io::Result<String> {
    // Each further nine of a percentile takes the same width.
    let to_nines = |(q, ms): &(f64, f64)| (-(1.0 - q).log10(), ms.max(1e-3));
    let lines: Vec<Vec<(f64, f64)>> = of_each.iter().map(|line| line.iter().map(to_nines).collect()).collect();
    let nines = bound(&lines, |(x, _)| *x).max(1.0);
    let most = bound(&lines, |(_, y)| *y);
    let least = lines.iter().flatten().map(|(_, y)| *y).fold(most, f64::min);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            // Half of the last label stands to the right of the axis.
            .margin_right(48)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..nines, (least * 0.8..most * 1.25).log_scale())
            .map_err(io::Error::other)?;
        let percent = |x: &f64| {
            let digits = (x.round() as usize).saturating_sub(2);
            format!("{:.digits$} %", (1.0 - 10_f64.powf(-x)) * 100.0)
        };
        let mesh = &mut chart.configure_mesh();
        mesh.x_labels(nines as usize + 1).x_label_formatter(&percent).y_desc("ms").x_desc("percentile");
        mesh.bold_line_style(GRID).light_line_style(TRANSPARENT);
        mesh.draw().map_err(io::Error::other)?;
        for (line, colour) in lines.into_iter().zip(COLOURS) {
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2))).map_err(io::Error::other)?;
        }
    }
    Ok(svg)
}

/// A line for each round, in the colour of its target.
fn plot_slices(runs: &[Run], what: &str) -> io::Result<String> {
    let slice = SLICE.as_secs_f64();
    let of_round = |counts: &[u64]| -> Vec<(f64, f64)> {
        counts.iter().enumerate().map(|(n, count)| (n as f64 * slice, *count as f64 / slice)).collect()
    };
    let of_run = |run: &Run| run.rounds.iter().map(|round| of_round(round.slices.whole())).collect::<Vec<_>>();
    let lines: Vec<Vec<Vec<(f64, f64)>>> = runs.iter().map(of_run).collect();
    let all = lines.concat();
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let (seconds, most) = (bound(&all, |(x, _)| *x).max(slice), bound(&all, |(_, y)| *y).max(1.0) * 1.05);
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            // Half of the last label stands to the right of the axis.
            .margin_right(48)
            .x_label_area_size(40)
            .y_label_area_size(80)
            .build_cartesian_2d(0.0..seconds, 0.0..most)
            .map_err(io::Error::other)?;
        let mesh = &mut chart.configure_mesh();
        let label = |y: &f64| if *y == 0.0 { "0".to_owned() } else { number(*y) };
        mesh.x_desc("seconds").y_desc(what).y_label_formatter(&label);
        mesh.bold_line_style(GRID).light_line_style(TRANSPARENT);
        mesh.draw().map_err(io::Error::other)?;
        for (rounds, colour) in lines.into_iter().zip(COLOURS) {
            let width = if rounds.len() == 1 { 2 } else { 1 };
            for line in rounds {
                let series = LineSeries::new(line, colour.stroke_width(width));
                chart.draw_series(series).map_err(io::Error::other)?;
            }
        }
    }
    Ok(svg)
}

fn bound(lines: &[Vec<(f64, f64)>], of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    lines.iter().flatten().map(of).fold(0.0, f64::max)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    #[test]
    fn the_page_says_all_of_it() {
        let (about, runs) = example();
        let page = page(&about, &runs).expect("a page");
        assert!(page.contains("<h1 class=\"bad\">INCOMPLETE: raybench: pairs</h1>"));
        assert!(page.contains("<tr><td>size</td><td>100</td></tr>"), "an option");
        assert!(page.contains("<td>&lt;10</td>"), "what comes from outside is escaped");
        for name in ["raybench", "date", "kernel", "CPU", "cores"] {
            assert!(page.contains(&format!("<tr><td>{name}</td><td>")), "{name}");
        }
        assert!(page.contains("good, 2 rounds"), "a legend of the rounds");
        assert!(page.contains("\ndeliveries/s\n"), "what is counted over time");
        assert!(page.contains("<th>A: good</th><th>B: worse</th>") && page.contains("<th>B/A</th>"));
        assert!(!page.contains("Interrupted"));
        assert!(page.contains("Warning: could not keep the rate"));
        assert!(page.contains(">-</td>"), "the good one has no such figure");
        assert!(!page.contains("NaN") && !page.contains(">inf"));
        assert_eq!(page.matches("<svg").count(), 2);
    }

    #[test]
    fn a_run_in_which_nothing_came_has_a_page() {
        let (about, _) = example();
        let mut outcome = crate::tally::Outcome { is_interrupted: true, ..Default::default() };
        outcome.slices.end(SLICE * 5);
        let page = page(&about, &[Run { name: "silent".to_owned(), rounds: vec![outcome] }]).expect("a page");
        assert_eq!(page.matches("<svg").count(), 1, "zeros over time");
        assert!(page.contains("Interrupted before its end") && page.contains("<th>silent</th>"));
    }
}
