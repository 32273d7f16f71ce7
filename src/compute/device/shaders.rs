//! The WGSL files, embedded by folder. A line `#import NAME` takes in `shaders/shared/NAME.wgsl`; what a kernel unrolls is written
//! in the syntax of Jinja templates (`{% for %}`, `{{ }}`), with defaults for its variables at the top of the file.

use super::Kernel;
use super::recording::Precision;
use include_dir::{Dir, include_dir};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};
use std::collections::BTreeMap;

static FILES: Dir = include_dir!("$CARGO_MANIFEST_DIR/shaders");

fn text(name: &str) -> &'static str {
    let file = FILES.get_file(format!("{name}.wgsl"));
    file.and_then(|file| file.contents_utf8()).unwrap_or_else(|| panic!("no shader {name}"))
}

/// The element of a feature tensor: a channel group of one voxel. `#import element` brings this line.
fn element(precision: Precision) -> &'static str {
    match precision {
        Precision::F32 => "alias Feature = vec4<f32>;\n",
        Precision::F16 => "alias Feature = vec4<f16>;\n",
    }
}

/// The source of a kernel's shader with its imports in place. Panics on a name without a file and on a template that does
/// not render: mistakes in the program, which the tests of all operators would meet.
pub fn source(kernel: &Kernel) -> String {
    let mut out = String::new();
    for line in text(kernel.shader).lines() {
        match line.strip_prefix("#import ").map(str::trim) {
            Some("element") => out.push_str(element(kernel.precision)),
            Some(import) => out.push_str(text(&format!("shared/{import}"))),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    if out.contains("{%") {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        templates.set_syntax(syntax.unwrap_or_default());
        let variables: BTreeMap<_, _> = kernel.variables.iter().copied().collect();
        out = templates
            .render_str(&out, variables)
            .unwrap_or_else(|error| panic!("the template {} does not render: {error:#}", kernel.shader));
    }
    match kernel.precision {
        Precision::F32 => out,
        Precision::F16 => format!("enable f16;\n{out}"),
    }
}
