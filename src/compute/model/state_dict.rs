//! Names of parameters as PyTorch's `state_dict` has them: nnU-Net registers most modules more than once.

/// The part of a parameter's name that other names of it replace: a convolution or norm within conv - norm - activation.
const ALIASES: [(&str, &str); 2] = [(".conv.", ".all_modules.0."), (".norm.", ".all_modules.1.")];

/// All names under which nnU-Net's `state_dict` lists the parameter `name`, itself first.
///
/// Blocks of convolution and norm list their modules twice, and the decoder lists the encoder once more.
pub fn names(name: &str) -> Vec<String> {
    let mut names = vec![name.to_string()];
    names.extend(all_modules(name));
    if name.starts_with("encoder.") {
        let again: Vec<String> = names.iter().map(|n| format!("decoder.{n}")).collect();
        names.extend(again);
    }
    names
}

/// The name of a convolution or norm of a block in its list of all modules.
fn all_modules(name: &str) -> Option<String> {
    ALIASES.iter().find_map(|(own, alias)| {
        let at = name.rfind(own)?;
        Some(format!("{}{alias}{}", &name[..at], &name[at + own.len()..]))
    })
}

/// Names under which the value of the parameter `name` is looked up, best first. nnssl's sparse conversion leaves stale copies
/// under the plain names of the encoder, so the list of all modules comes before them.
pub fn lookup(name: &str) -> Vec<String> {
    all_modules(name).into_iter().chain([name.to_string()]).collect()
}

/// The parameter that the name `alias` of nnU-Net's `state_dict` is one of the names of, itself where it is the first; none for
/// modules that the networks here do not have, as dropout puts them into the lists of all modules.
pub fn parameter(alias: &str) -> Option<String> {
    let name = match alias.strip_prefix("decoder.") {
        Some(again) if again.starts_with("encoder.") => again,
        _ => alias,
    };
    match ALIASES.iter().find_map(|(own, alias)| Some((own, alias, name.rfind(alias)?))) {
        Some((own, alias, at)) => Some(format!("{}{own}{}", &name[..at], &name[at + alias.len()..])),
        None if name.contains(".all_modules.") => None,
        None => Some(name.to_string()),
    }
}

/// As [`parameter`] of any convolution or norm: where there is dropout, or the norm comes last, the norm lies elsewhere in the list of
/// all modules, in which nothing but the convolution, the first, and the norm has tensors.
pub fn canonical(alias: &str) -> String {
    const ALL: &str = ".all_modules.";
    let name = alias.strip_prefix("decoder.").filter(|again| again.starts_with("encoder.")).unwrap_or(alias);
    let Some((unit, rest)) = name.split_once(ALL) else { return name.to_string() };
    let (at, tensor) = rest.split_once('.').unwrap_or(("", rest));
    format!("{unit}.{}.{tensor}", if at == "0" { "conv" } else { "norm" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_registration_of_a_parameter_has_its_name() {
        let conv = "encoder.stages.1.0.convs.0";
        assert_eq!(
            names(&format!("{conv}.conv.weight")),
            [
                format!("{conv}.conv.weight"),
                format!("{conv}.all_modules.0.weight"),
                format!("decoder.{conv}.conv.weight"),
                format!("decoder.{conv}.all_modules.0.weight"),
            ]
        );
        let norm = "decoder.stages.0.convs.0";
        assert_eq!(
            names(&format!("{norm}.norm.bias")),
            [format!("{norm}.norm.bias"), format!("{norm}.all_modules.1.bias")]
        );
        assert_eq!(names("decoder.transpconvs.0.bias"), ["decoder.transpconvs.0.bias"]);
        for name in [&format!("{conv}.conv.weight"), &format!("{norm}.norm.bias"), "decoder.seg_layers.0.bias"] {
            assert!(names(name).iter().all(|alias| parameter(alias).as_deref() == Some(name)), "{name}");
            assert!(names(name).iter().all(|alias| canonical(alias) == *name), "{name}");
        }
        assert_eq!(canonical(&format!("decoder.{conv}.all_modules.2.weight")), format!("{conv}.norm.weight"));
        assert_eq!(parameter(&format!("{conv}.all_modules.2.weight")), None);
        assert_eq!(lookup("encoder.stem.convs.0.conv.bias")[0], "encoder.stem.convs.0.all_modules.0.bias");
    }
}
