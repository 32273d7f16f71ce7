//! A plan as a person reads it.

use super::planner::{Plan, Stage};
use crate::formats::nnunet::Normalization;

/// One column a configuration, one row a decision.
pub fn table(plan: &Plan, channels: &[String]) -> String {
    let mut columns = vec![("3d_fullres", &plan.full)];
    columns.extend(plan.low.as_ref().map(|low| ("3d_lowres", low)));
    let header = [String::new()].into_iter().chain(columns.iter().map(|c| c.0.to_string())).collect();
    let mut rows: Vec<Vec<String>> = vec![header];
    let mut row = |name: &str, value: &dyn Fn(&Stage) -> String| {
        rows.push([name.to_string()].into_iter().chain(columns.iter().map(|(_, s)| value(s))).collect());
    };
    row("voxel size (mm)", &|s| s.spacing.map(decimal).join(" x "));
    row("median image", &|s| s.median.map(|n| n.to_string()).join(" x "));
    row("patch", &|s| s.patch.map(|n| n.to_string()).join(" x "));
    row("batch", &|s| s.batch.to_string());
    let encoder = |s: &Stage| if s.architecture.residual { "residual" } else { "plain" };
    row("stages", &|s| format!("{} ({})", s.architecture.features.len(), encoder(s)));
    row("features", &|s| list(&s.architecture.features));
    row("blocks", &|s| list(&s.architecture.blocks));
    row("strides", &|s| digits(&s.architecture.strides));
    row("kernels", &|s| digits(&s.architecture.kernels));
    row("feature maps", &|s| format!("{:.0} M a patch", s.feature_maps / 1e6));

    let width = |k: usize| rows.iter().map(|r| r[k].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..=columns.len()).map(|k| width(k).max(10)).collect();
    let line = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().zip(&widths).map(|(c, w)| format!("{c:w$}")).collect();
        cells.join("  ").trim_end().to_string()
    };
    let mut lines: Vec<String> = rows.iter().map(|r| line(r)).collect();
    for ((name, scheme), masked) in channels.iter().zip(&plan.normalization).zip(&plan.use_mask_for_norm) {
        let scheme = match (scheme, masked) {
            (Normalization::ZScore, true) => "z-score within what is not 0",
            (Normalization::ZScore, false) => "z-score",
            (Normalization::Ct, _) => "clip to percentiles 0.5 and 99.5 of the foreground, then its z-score",
            (Normalization::None, _) => "none",
            (Normalization::RescaleTo01, _) => "to the range 0 to 1",
            (Normalization::RgbTo01, _) => "divide by 255",
        };
        lines.push(format!("{:w$}  {name}: {scheme}", "channel", w = widths[0]));
    }
    if plan.transpose != [0, 1, 2] {
        let axes = plan.transpose.map(|a| ["z", "y", "x"][a]).join(", ");
        lines.push(format!("{:w$}  {axes} of the images", "axes", w = widths[0]));
    }
    lines.join("\n")
}

/// At most four digits behind the point.
fn decimal(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

fn list(values: &[usize]) -> String {
    values.iter().map(usize::to_string).collect::<Vec<_>>().join(" ")
}

/// `122` for 1 x 2 x 2.
fn digits(values: &[[usize; 3]]) -> String {
    values.iter().map(|v| v.map(|k| k.to_string()).concat()).collect::<Vec<_>>().join(" ")
}
