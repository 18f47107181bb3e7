//! Results as one HTML page that needs nothing else.

use std::fmt::Write as _;
use std::io;

use plotters::prelude::*;

use crate::compare::{median, names, values};
use crate::report::{self, Run, completeness, is_quantile, number, percentiles};
use crate::tally::SLICE;

const COLOURS: [RGBColor; 2] = [RGBColor(31, 119, 180), RGBColor(214, 90, 20)];
const SIZE: (u32, u32) = (860, 340);

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:880px;margin:2em auto;padding:0 1em;color:#222}\
    table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left}\
    td.n{text-align:right;font-variant-numeric:tabular-nums}svg{max-width:100%;height:auto}\
    code{background:#f3f3f3;padding:.1em .3em}pre{overflow:auto;background:#f3f3f3;padding:1em}";

pub(crate) fn page(workload: &str, settings: &str, runs: &[Run]) -> io::Result<String> {
    let title = format!("raybench: {workload}");
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>{STYLE}</style>\n\
         <h1>{title}</h1>\n<p><code>{}</code></p>\n",
        escape(settings)
    );
    table(&mut page, runs);
    for Run { name, outcome } in runs {
        let _ = write!(page, "<p>{}: {}", escape(name), completeness(&outcome.counts));
        if let Some(trouble) = &outcome.first_trouble {
            let _ = write!(page, "<br>The first trouble: {}", escape(trouble));
        }
        page.push_str("</p>\n");
    }
    if runs.iter().any(|run| !run.outcome.times.is_empty()) {
        let _ = writeln!(page, "<h2>Time of each {}</h2>\n{}", runs[0].outcome.times_of, plot_times(runs)?);
    }
    if runs.iter().any(|run| run.outcome.slices.len() > 1) {
        let _ = writeln!(page, "<h2>Over time</h2>\n{}", plot_slices(runs)?);
    }
    let json = serde_json::to_string_pretty(&report::json(workload, settings, runs)).map_err(io::Error::other)?;
    let _ = writeln!(page, "<details><summary>All numbers</summary><pre>{}</pre></details>", escape(&json));
    Ok(page)
}

/// Medians over the rounds; with two targets their ratio too.
fn table(page: &mut String, runs: &[Run]) {
    page.push_str("<table><tr><th></th>");
    for Run { name, .. } in runs {
        let _ = write!(page, "<th>{}</th>", escape(name));
    }
    page.push_str(if runs.len() == 2 { "<th>unit</th><th>ratio</th></tr>\n" } else { "<th>unit</th></tr>\n" });
    for (name, unit) in names(&runs[0].outcome) {
        let of_each: Vec<Vec<f64>> = runs.iter().map(|run| values(&run.outcome, name)).collect();
        let shown = if is_quantile(name) { format!("{}, {name}", runs[0].outcome.times_of) } else { name.to_owned() };
        let _ = write!(page, "<tr><td>{shown}</td>");
        for values in &of_each {
            let _ = write!(page, "<td class=\"n\">{}</td>", number(median(values)));
        }
        let _ = write!(page, "<td>{unit}</td>");
        if let [a, b] = of_each.as_slice() {
            let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| b / a).collect();
            let _ = write!(page, "<td class=\"n\">{:.2}</td>", median(&ratios));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table>\n");
}

fn plot_times(runs: &[Run]) -> io::Result<String> {
    // Each nine more is as wide as the one before.
    let lines: Vec<Vec<(f64, f64)>> = runs
        .iter()
        .map(|run| percentiles(&run.outcome).into_iter().map(|(q, ms)| (-(1.0 - q).log10(), ms.max(1e-3))).collect())
        .collect();
    let nines = bound(&lines, |(x, _)| *x).max(1.0);
    let most = bound(&lines, |(_, y)| *y);
    let least = lines.iter().flatten().map(|(_, y)| *y).fold(most, f64::min);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
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
        mesh.draw().map_err(io::Error::other)?;
        for ((run, line), colour) in runs.iter().zip(lines).zip(COLOURS) {
            let series = chart.draw_series(LineSeries::new(line, colour.stroke_width(2))).map_err(io::Error::other)?;
            series.label(&run.name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        let mut legend = chart.configure_series_labels();
        let legend = legend.position(SeriesLabelPosition::UpperLeft).background_style(WHITE).border_style(BLACK);
        legend.draw().map_err(io::Error::other)?;
    }
    Ok(svg)
}

fn plot_slices(runs: &[Run]) -> io::Result<String> {
    let slice = SLICE.as_secs_f64();
    // The last one is not whole.
    let lines: Vec<Vec<(f64, f64)>> = runs
        .iter()
        .map(|run| {
            let slices = &run.outcome.slices;
            let whole = slices.len().saturating_sub(1);
            slices.iter().take(whole).enumerate().map(|(n, count)| (n as f64 * slice, *count as f64 / slice)).collect()
        })
        .collect();
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(80)
            .build_cartesian_2d(0.0..bound(&lines, |(x, _)| *x).max(slice), 0.0..bound(&lines, |(_, y)| *y) * 1.1)
            .map_err(io::Error::other)?;
        let mesh = &mut chart.configure_mesh();
        mesh.x_desc("seconds").y_desc("a second").y_label_formatter(&|y| number(*y));
        mesh.draw().map_err(io::Error::other)?;
        for (line, colour) in lines.into_iter().zip(COLOURS) {
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2))).map_err(io::Error::other)?;
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
