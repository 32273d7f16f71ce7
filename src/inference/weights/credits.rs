//! Whom a checkpoint wants to be credited, and under which licence it was published.

use crate::base::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;

/// Key of the citations in a checkpoint, and in the additional texts of this program's.
pub const CITATIONS: &str = "citations";
/// Key of the licence among the additional texts of this program's checkpoints.
pub const LICENCE: &str = "licence";
/// The model card of a folder on the Hugging Face hub.
const CARD: &str = "README.md";
/// Model cards are read up to this size.
const MOST: u64 = 1 << 20;

/// Citations and licence.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Credits {
    /// As nnssl has them: a list of {type, name, apa_citations}.
    pub citations: Option<Value>,
    /// As the model card names it.
    pub licence: Option<String>,
}

impl Credits {
    /// The works to cite, each with what it is cited for.
    pub fn works(&self) -> Vec<String> {
        let entries = self.citations.as_ref().and_then(Value::as_array).into_iter().flatten();
        let works = entries.flat_map(|entry| {
            let what = ["type", "name"].map(|key| entry[key].as_str().unwrap_or_default()).join(" ");
            let texts = match &entry["apa_citations"] {
                Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
                one => one.as_str().into_iter().collect::<Vec<_>>(),
            };
            texts.into_iter().map(move |text| format!("{}: {text}", what.trim())).collect::<Vec<_>>()
        });
        works.collect()
    }

    /// What a user reads once; nothing where there is nothing to credit.
    pub fn message(&self, of: &Path) -> Option<String> {
        let works: Vec<String> = self.works().iter().map(|work| format!("\n  {work}")).collect();
        let licence = self.licence.as_ref().map(|name| format!("{} is published under {name}.", of.display()));
        let cite = (!works.is_empty()).then(|| format!("Results with {} should cite:{}", of.display(), works.concat()));
        let parts: Vec<String> = licence.into_iter().chain(cite).collect();
        (!parts.is_empty()).then(|| parts.join("\n"))
    }

    /// As additional texts of a checkpoint of this program.
    pub fn texts(&self) -> Vec<(String, String)> {
        let citations = self.citations.iter().map(|json| (CITATIONS.to_string(), json.to_string()));
        citations.chain(self.licence.iter().map(|name| (LICENCE.to_string(), json!(name).to_string()))).collect()
    }
}

/// The licence in the front matter of the model card beside a checkpoint, where there is one.
///
/// # Errors
/// The card cannot be read.
pub fn licence_beside(checkpoint: &Path) -> Result<Option<String>> {
    let card = checkpoint.with_file_name(CARD);
    match std::fs::metadata(&card) {
        Ok(found) if found.is_file() && found.len() <= MOST => {}
        _ => return Ok(None),
    }
    let bytes = std::fs::read(&card).map_err(Error::io("read", &card))?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.trim_start_matches('\u{feff}').lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Ok(None);
    }
    let named = lines.take_while(|line| line.trim_end() != "---").find_map(|line| line.strip_prefix("license:"));
    Ok(named.map(|name| name.trim().trim_matches(['"', '\'']).to_string()).filter(|name| !name.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_names_its_licence_in_its_front_matter_alone() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoint_final.pth");
        let of = |card: &str| {
            std::fs::write(folder.path().join(CARD), card).unwrap();
            licence_beside(&checkpoint).unwrap()
        };
        assert_eq!(of("---\nlicense: cc-by-4.0\n---\n# A card\n").as_deref(), Some("cc-by-4.0"));
        assert_eq!(of("---\r\ntags: [mri]\r\nlicense: \"apache-2.0\"\r\n---\r\n").as_deref(), Some("apache-2.0"));
        assert_eq!(of("# A card\nlicense: mit\n"), None);
        assert_eq!(of("---\ntags: []\n---\nlicense: mit\n"), None);
    }

    #[test]
    fn works_are_listed_with_what_they_are_cited_for() {
        let citations = json!([
            { "type": "Architecture", "name": "ResEnc", "apa_citations": ["One (2024).", "Two (2025)."] },
            { "type": "Dataset", "name": "Open", "apa_citations": "Three (2025)." },
        ]);
        let credits = Credits { citations: Some(citations), licence: Some("cc-by-4.0".into()) };
        assert_eq!(
            credits.works(),
            ["Architecture ResEnc: One (2024).", "Architecture ResEnc: Two (2025).", "Dataset Open: Three (2025)."]
        );
        let message = credits.message(Path::new("x.pth")).unwrap();
        assert!(message.contains("x.pth is published under cc-by-4.0.") && message.contains("Three"), "{message}");
        assert_eq!(Credits::default().message(Path::new("x.pth")), None);
    }
}
