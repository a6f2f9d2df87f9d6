//! Attacks that other tests make, by their names.

/// Number, attack, and the tests that make it.
pub(super) const ELSEWHERE: &[(&str, &str, &[&str])] = &[
    (
        "A09",
        "the same with the host's network: that it is reached is said",
        &["without_a_network_buildpacks_reach_nothing_and_the_image_is_published"],
    ),
    (
        "A09",
        "the same with a network that has a way out, where a cloud announces its service as a route",
        &["what_is_outside_is_reached_and_neither_this_machine_nor_its_cloud"],
    ),
    (
        "A10",
        "services of this machine on each of its addresses, with a network that has a way out",
        &["what_is_outside_is_reached_and_neither_this_machine_nor_its_cloud"],
    ),
    ("A14", "a builder whose user is root", &["what_is_no_builder_says_what_it_lacks"]),
    (
        "A20",
        "plans and orders without end",
        &[
            "orders_without_end_are_refused",
            "forty_alternatives_that_do_not_fit_are_seen_through",
            "documents_have_a_limit",
        ],
    ),
    ("A28", "patterns of slices that are work without end", &["many_stars_are_no_work"]),
    ("A29", "documents of 50 MB", &["documents_have_a_limit"]),
    (
        "A32",
        "a cache that leads elsewhere",
        &[
            "an_archive_cannot_reach_beyond_its_layer",
            "links_that_foreign_programs_left_are_not_followed",
            "what_a_stranger_s_builder_cached_no_other_builder_restores",
        ],
    ),
    (
        "A33",
        "a cache or previous image of a stranger's",
        &[
            "layers_that_are_not_what_they_should_be_stay_away_and_are_made_again",
            "a_blob_that_is_damaged_on_the_registry_stays_away",
        ],
    ),
    (
        "A35",
        "a program that does not end",
        &[
            "a_buildpack_that_does_not_end_is_ended_and_named_with_what_to_do",
            "who_does_not_heed_the_end_is_ended",
        ],
    ),
    (
        "A35",
        "silence without end, and a disk that is filled",
        &[
            "a_buildpack_that_says_nothing_any_more_is_ended_and_told_apart_from_one_that_takes_its_time",
            "a_buildpack_that_fills_the_disk_is_ended_and_told_by_how_much",
        ],
    ),
    (
        "A21",
        "what is refused to ours, where another lifecycle exports: links to its credentials, FIFOs",
        &["what_buildpacks_leave_is_looked_at_before_another_lifecycle_exports_it"],
    ),
    (
        "A18",
        "another run image, of another lifecycle's analyzer or restorer, on another registry",
        &["the_run_image_is_the_one_that_was_resolved_whatever_another_lifecycle_says"],
    ),
    (
        "A39",
        "links of the source that lead out of it",
        &["a_folder_that_becomes_a_link_while_it_is_copied_leads_nowhere"],
    ),
    (
        "A41",
        "mirrors of a builder's choice",
        &[
            "only_the_registry_s_own_credentials_are_in_it_and_none_is_shown",
            "a_builder_alone_does_not_have_credentials_used",
            "a_label_alone_does_not_have_credentials_used",
            "a_registry_that_is_not_on_loopback_is_spoken_to_in_plain_http_only_where_that_is_said",
        ],
    ),
    (
        "A43",
        "token servers and redirections of strangers",
        &[
            "token_servers_of_strangers_get_nothing",
            "the_token_is_not_sent_on",
            "who_has_no_password_is_not_sent_to_a_stranger_either",
            "a_registry_that_changes_its_mind_sends_nobody_to_a_stranger",
        ],
    ),
    (
        "A45",
        "content that is not what it says",
        &["content_must_be_as_described", "nothing_of_a_wrong_layer_stays"],
    ),
    (
        "A46",
        "two builds of one application at once",
        &["two_builds_of_one_application_at_once_come_one_after_the_other"],
    ),
    ("A47", "marks of an overlay in what is unpacked later", &["t27_opaque"]),
    ("A49", "a memory dump with a program's secrets", &["no_memory_is_dumped"]),
    (
        "A55",
        "an extension that has the image extended",
        &["an_extension_that_extends_ends_the_build_with_the_code_for_it"],
    ),
];
