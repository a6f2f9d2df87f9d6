//! `coracle config` and `coracle builder suggest`: no image is touched, and no container is started.

use coracle::{BuilderName, Config, Policy};

use crate::args::config::{DefaultBuilder, LifecycleArchives, LifecycleImage, TrustCommand};
use crate::failure::Failure;
use crate::{report, settings};

pub(crate) fn trusted_builders(command: &TrustCommand) -> Result<(), Failure> {
    match command {
        TrustCommand::List => list(&settings::config()?, &settings::policies()?),
        TrustCommand::Add(name) => {
            let path = settings::config_path().ok_or(Failure::NoConfig)?;
            Config::change(&path, |config| {
                config.trusted_builders.add(&name.builder);
                Ok::<_, Failure>(())
            })?;
            report::result(&format!("{} is trusted", name.builder));
        }
        TrustCommand::Remove(name) => {
            let path = settings::config_path().ok_or(Failure::NoConfig)?;
            Config::change(&path, |config| Ok::<_, Failure>(config.trusted_builders.remove(&name.builder)?))?;
            report::result(&format!("{} is not trusted", name.builder));
        }
    }
    Ok(())
}

pub(crate) fn default_builder(typed: &DefaultBuilder) -> Result<(), Failure> {
    if typed.builder.is_some() || typed.unset {
        let path = settings::config_path().ok_or(Failure::NoConfig)?;
        Config::change(&path, |config| {
            config.default_builder.clone_from(&typed.builder);
            Ok::<_, Failure>(())
        })?;
    }
    let chosen = settings::config()?.default_builder;
    report::result(&chosen.map_or_else(|| "none; builds name theirs".to_owned(), |name| name.to_string()));
    Ok(())
}

pub(crate) fn lifecycle_image(typed: &LifecycleImage) -> Result<(), Failure> {
    if typed.image.is_some() || typed.unset {
        let path = settings::config_path().ok_or(Failure::NoConfig)?;
        Config::change(&path, |config| {
            config.lifecycle_image.clone_from(&typed.image);
            Ok::<_, Failure>(())
        })?;
    }
    report::result(&settings::config()?.lifecycle_image.unwrap_or_default().to_string());
    Ok(())
}

pub(crate) fn lifecycle_archives(typed: &LifecycleArchives) -> Result<(), Failure> {
    if typed.archives.is_some() || typed.unset || !typed.digest.is_empty() {
        let path = settings::config_path().ok_or(Failure::NoConfig)?;
        Config::change(&path, |config| {
            if typed.unset {
                (config.lifecycle_archives, config.lifecycle_digests) = Default::default();
            }
            config.lifecycle_archives = typed.archives.clone().or(config.lifecycle_archives.take());
            let known = typed.digest.iter().cloned().map(|known| (known.version, known.digest));
            config.lifecycle_digests.extend(known);
            Ok::<_, Failure>(())
        })?;
    }
    let config = settings::config()?;
    report::result(&config.lifecycle_archives.unwrap_or_default().to_string());
    config
        .lifecycle_digests
        .iter()
        .for_each(|(version, digest)| report::result(&format!("{version} {digest}")));
    Ok(())
}

fn list(config: &Config, policies: &[Policy]) {
    let lists = &config.trusted_builders;
    let suggested = lists.suggested().into_iter().map(|name| (name, "suggested"));
    let added = lists.added().iter().cloned().map(|name| (name, "added"));
    let rows: Vec<_> = suggested
        .chain(added)
        .map(|(name, from)| match policies.iter().find(|policy| !policy.allows(&name)) {
            Some(policy) => {
                [name.to_string(), format!("{from}, but not allowed by {}", policy.path().display())]
            }
            None => [name.to_string(), from.to_owned()],
        })
        .collect();
    report::table(&rows);
}

/// Builders for who has none yet; `coracle config trusted-builders list` says which of them are trusted.
pub(crate) fn suggest() -> Result<(), Failure> {
    let trusted = settings::config()?.trusted_builders.suggested();
    let mark = |name: &BuilderName| if trusted.contains(name) { "" } else { " (not trusted)" };
    let rows: Vec<_> = coracle::suggested()
        .into_iter()
        .map(|builder| {
            let mark = mark(&builder.name);
            [builder.name.to_string(), builder.vendor.to_owned(), format!("{}{mark}", builder.description)]
        })
        .collect();
    report::table(&rows);
    Ok(())
}
