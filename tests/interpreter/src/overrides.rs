//! Overrides turned into constants in the text of a shader.
//!
//! naga resolves overrides in the module, and then asks again for its own proof that barriers are reached in uniform control flow,
//! whatever it was asked before. This is the way around for kernels that it cannot prove.

use naga::{Module, ScalarKind, TypeInner};

/// A value as WGSL writes it.
fn literal(value: f64, kind: ScalarKind, width: u8) -> Option<String> {
    if !value.is_finite() {
        return None;
    }
    Some(match (kind, width) {
        (ScalarKind::Bool, _) => format!("{}", value != 0.0 && !value.is_nan()),
        (ScalarKind::Sint, 4) => format!("i32({})", value as i64),
        (ScalarKind::Uint, 4) => format!("u32({})", value as i64),
        (ScalarKind::Float, 4) => format!("f32({value:?})"),
        (ScalarKind::Float, 2) => format!("f16({value:?})"),
        _ => return None,
    })
}

/// The text with constants in place of the overrides of `module`, which was parsed from it. Lines stay where they are.
pub(crate) fn as_constants(wgsl: &str, module: &Module, constants: &[(&str, f64)]) -> Option<String> {
    let mut out = wgsl.to_string();
    let mut found: Vec<_> = module.overrides.iter().collect();
    found.sort_by_key(|(handle, _)| module.overrides.get_span(*handle).to_range().map(|range| range.start));
    // From the end, so that what is yet to come stays where it is.
    for (handle, variable) in found.into_iter().rev() {
        let range = module.overrides.get_span(handle).to_range()?;
        let name = variable.name.as_deref()?;
        let key = variable.id.map_or_else(|| name.to_string(), |id| id.to_string());
        let given = constants.iter().find(|(constant, _)| *constant == key);
        let TypeInner::Scalar(scalar) = module.types[variable.ty].inner else { return None };
        let declaration = wgsl.get(range.clone())?;
        let constant = match given {
            Some((_, value)) => {
                let lines = "\n".repeat(declaration.matches('\n').count());
                format!("const {name} = {};{lines}", literal(*value, scalar.kind, scalar.width)?)
            }
            None => format!("const{}", declaration.strip_prefix("override")?),
        };
        out.replace_range(range.clone(), &constant);
        // An id before it.
        let before = wgsl[..range.start].trim_end();
        if let Some(start) = before.rfind('@')
            && before[start..].starts_with("@id")
            && before.ends_with(')')
        {
            out.replace_range(start..before.len(), "");
        }
    }
    Some(out)
}
