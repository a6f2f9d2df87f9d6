//! What a Dockerfile of an extension may be (Image Extension, "Dockerfiles"): one stage, on the given image or, for run
//! images, on another.

/// The argument that stands for the image to extend.
const BASE: &str = "base_image";

/// Instructions that an extended image keeps in reproducible layers.
const RECOMMENDED: [&str; 10] =
    ["FROM", "ADD", "ARG", "COPY", "ENV", "LABEL", "RUN", "SHELL", "USER", "WORKDIR"];

/// Instructions that there are besides.
const OTHERS: [&str; 8] =
    ["CMD", "ENTRYPOINT", "EXPOSE", "HEALTHCHECK", "MAINTAINER", "ONBUILD", "STOPSIGNAL", "VOLUME"];

/// Instructions that mean something without words after them.
const BARE: [&str; 3] = ["CMD", "ENTRYPOINT", "RUN"];

/// Why a Dockerfile was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DockerfileError {
    #[error("it has no instruction")]
    Empty,
    #[error("line {line}: `{word}` is not an instruction")]
    Unknown { line: usize, word: String },
    #[error("line {line}: {name} needs more, or other, words after it")]
    Words { line: usize, name: &'static str },
    #[error("line {line}: {name} comes before FROM")]
    NoStage { line: usize, name: &'static str },
    #[error("line {line}: the heredoc does not end")]
    Heredoc { line: usize },
    #[error("it has no FROM")]
    NoFrom,
    #[error("it has more than one FROM: there may be only one stage")]
    Stages,
    #[error("before FROM it must have ARG base_image, and no other ARG")]
    NoArg,
    #[error("it must extend the given image: FROM ${{base_image}}")]
    NoBase,
}

/// What a Dockerfile does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Dockerfile {
    /// The image that it starts from, where that is not the given one.
    pub(super) other_base: Option<String>,
    /// Whether it changes anything in that image.
    pub(super) extends: bool,
    /// Instructions that are better not used, with their lines.
    pub(super) discouraged: Vec<(usize, &'static str)>,
    bases: usize,
    /// The names of the arguments before FROM, one for each ARG.
    arguments: Vec<String>,
}

impl Dockerfile {
    /// A `run.Dockerfile`.
    pub(super) fn run(text: &str) -> Result<Self, DockerfileError> {
        let file = Self::read(text)?;
        match file.bases {
            0 => Err(DockerfileError::NoFrom),
            1 => Ok(file),
            _ => Err(DockerfileError::Stages),
        }
    }

    /// A `build.Dockerfile`.
    pub(super) fn build(text: &str) -> Result<Self, DockerfileError> {
        let file = Self::read(text)?;
        match file {
            Self { bases: 2.., .. } => Err(DockerfileError::Stages),
            Self { ref arguments, .. } if *arguments != [BASE] => Err(DockerfileError::NoArg),
            Self { bases: 0, .. } => Err(DockerfileError::NoFrom),
            Self { other_base: Some(_), .. } => Err(DockerfileError::NoBase),
            file => Ok(file),
        }
    }

    fn read(text: &str) -> Result<Self, DockerfileError> {
        let mut file = Self::default();
        let instructions = instructions(text)?;
        if instructions.is_empty() {
            return Err(DockerfileError::Empty);
        }
        for (line, name, rest) in instructions {
            let words: Vec<&str> = rest.split_whitespace().collect();
            if words.is_empty() && !BARE.contains(&name) {
                return Err(DockerfileError::Words { line, name });
            }
            match name {
                "FROM" => file.from(line, &words)?,
                "ARG" if file.bases == 0 => {
                    let name = words[0].split('=').next().unwrap_or_default();
                    file.arguments.push(name.to_owned());
                }
                _ if file.bases == 0 => return Err(DockerfileError::NoStage { line, name }),
                _ => {
                    file.extends = true;
                    if !RECOMMENDED.contains(&name) {
                        file.discouraged.push((line, name));
                    }
                }
            }
        }
        Ok(file)
    }

    fn from(&mut self, line: usize, words: &[&str]) -> Result<(), DockerfileError> {
        let flags = words.iter().take_while(|word| word.starts_with("--")).count();
        let base = match &words[flags..] {
            [base] => base,
            [base, word, _] if word.eq_ignore_ascii_case("as") => base,
            _ => return Err(DockerfileError::Words { line, name: "FROM" }),
        };
        self.bases += 1;
        let base = (*base).to_owned();
        if base != format!("${{{BASE}}}") {
            self.other_base = Some(base);
        }
        Ok(())
    }
}

/// The instructions of a text: their lines, names, and what follows; lines that are continued are one.
fn instructions(text: &str) -> Result<Vec<(usize, &'static str, String)>, DockerfileError> {
    let mut lines = text.trim_start_matches('\u{feff}').lines().enumerate();
    let mut instructions = Vec::new();
    let (mut escape, mut directives) = ('\\', true);
    while let Some((index, first)) = lines.next() {
        let first = first.trim();
        if let Some(comment) = first.strip_prefix('#') {
            let directive = comment.split_once('=').filter(|_| directives);
            match directive.map(|(key, value)| (key.trim().to_lowercase(), value.trim())) {
                Some((key, value)) if key == "escape" => escape = value.chars().next().unwrap_or(escape),
                directive => directives = directive.is_some(),
            }
            continue;
        }
        directives = false;
        if first.is_empty() {
            continue;
        }
        let mut joined = first.to_owned();
        while joined.ends_with(escape) {
            joined.pop();
            let next = lines.by_ref().map(|(_, line)| line.trim_end()).find(|line| {
                let line = line.trim_start();
                !line.is_empty() && !line.starts_with('#')
            });
            let Some(next) = next else { break };
            joined.push_str(next);
        }
        let line = index + 1;
        let (word, rest) = joined.split_once(char::is_whitespace).unwrap_or((&joined, ""));
        let upper = word.to_ascii_uppercase();
        let name = RECOMMENDED.into_iter().chain(OTHERS).find(|name| *name == upper);
        let name = name.ok_or_else(|| DockerfileError::Unknown { line, word: word.to_owned() })?;
        if matches!(name, "RUN" | "COPY" | "ADD") {
            for (end, tabs) in heredocs(rest) {
                let is_end =
                    |line: &str| if tabs { line.trim_start_matches('\t') == end } else { line == end };
                if !lines.by_ref().any(|(_, line)| is_end(line)) {
                    return Err(DockerfileError::Heredoc { line });
                }
            }
        }
        instructions.push((line, name, rest.to_owned()));
    }
    Ok(instructions)
}

/// The words that end the heredocs of an instruction, each with whether tabs may stand before it.
fn heredocs(rest: &str) -> Vec<(String, bool)> {
    let of = |word: &str| {
        let (digits, name) = word.split_once("<<")?;
        let (name, tabs) = name.strip_prefix('-').map_or((name, false), |name| (name, true));
        let name = name.trim_matches(['"', '\'']);
        let plain = !name.is_empty() && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
        (digits.chars().all(|digit| digit.is_ascii_digit()) && plain).then(|| (name.to_owned(), tabs))
    };
    rest.split_whitespace().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_image_is_switched_extended_or_both() {
        let read = |text: &str| {
            let file = Dockerfile::run(text).unwrap();
            (file.other_base, file.extends)
        };
        assert_eq!(read("FROM other:1"), (Some("other:1".to_owned()), false));
        assert_eq!(read("# c\n\nARG base_image\nFROM ${base_image}\nRUN x"), (None, true));
        assert_eq!(read("from --platform=linux/amd64 o AS s\nenv a=b"), (Some("o".to_owned()), true));
        assert_eq!(read("ARG base_image=x\nFROM $base_image"), (Some("$base_image".to_owned()), false));
        let discouraged = Dockerfile::run("FROM a\nRUN a \\\n# no\n  b\n\nEXPOSE 80\n").unwrap().discouraged;
        assert_eq!(discouraged, [(6, "EXPOSE")]);
    }

    #[test]
    fn lines_are_joined_and_heredocs_are_no_instructions() {
        for text in [
            "FROM a\nRUN <<EOF\nFROM b\nEOF\nRUN c",
            "FROM a\nRUN <<-'X' cat >f\nnonsense\n\tX\n",
            "FROM a\nRUN b \\\n  FROM c",
            "# escape=`\nFROM a\nRUN b `\n  FROM c",
        ] {
            assert_eq!(Dockerfile::run(text).map(|file| file.bases), Ok(1), "{text}");
        }
    }

    /// Copied for each line, this would take hours.
    #[test]
    fn an_instruction_of_many_lines_is_read() {
        let text = format!("FROM a\nRUN x\\\n{}", "0123456789\\\n".repeat(1_000_000));
        assert!(Dockerfile::run(&text).unwrap().extends);
    }

    #[test]
    fn what_is_refused_says_why() {
        for (text, build, why) in [
            ("", false, "it has no instruction"),
            ("FROM a\nFETCH b", false, "line 2: `FETCH` is not an instruction"),
            ("FROM", false, "line 1: FROM needs more, or other, words after it"),
            ("FROM a b", false, "line 1: FROM needs more, or other, words after it"),
            ("RUN a", false, "line 1: RUN comes before FROM"),
            ("FROM a\nRUN <<E\nx", false, "line 2: the heredoc does not end"),
            ("ARG a", false, "it has no FROM"),
            ("FROM a\nFROM b", false, "it has more than one FROM: there may be only one stage"),
            ("FROM ${base_image}", true, "before FROM it must have ARG base_image, and no other ARG"),
            (
                "ARG base_image\nARG x\nFROM ${base_image}",
                true,
                "before FROM it must have ARG base_image, and no other ARG",
            ),
            ("ARG base_image\nFROM a", true, "it must extend the given image: FROM ${base_image}"),
            ("ARG base_image", true, "it has no FROM"),
            (
                "ARG base_image\nFROM ${base_image}\nFROM b",
                true,
                "it has more than one FROM: there may be only one stage",
            ),
        ] {
            let read = if build { Dockerfile::build(text) } else { Dockerfile::run(text) };
            assert_eq!(read.unwrap_err().to_string(), why, "{text}");
        }
        let fine = Dockerfile::build("ARG base_image\nFROM ${base_image}\nRUN a").unwrap();
        assert!(fine.extends && fine.other_base.is_none());
    }
}
