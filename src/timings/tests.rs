use std::time::Duration;

use super::*;
use crate::event::Stream;

fn trace() -> Trace {
    let span = |work, name: &str, began, took, bytes| Span {
        work,
        name: name.to_owned(),
        began: Duration::from_millis(began),
        took: Duration::from_millis(took),
        bytes,
    };
    let layer = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    Trace {
        title: "build <r.example/app>".to_owned(),
        total: Duration::from_millis(1000),
        spans: vec![
            span(Work::Stage, "start", 0, 20, None),
            span(Work::Layer, layer, 50, 300, Some(12_345_678)),
            span(Work::Layer, layer, 60, 100, Some(1)),
            span(Work::Job, "Pull", 40, 360, None),
            span(Work::Container, "build", 400, 500, None),
        ],
        marks: vec![Mark {
            phase: "export".to_owned(),
            text: "Reusing layer 'a:b'".to_owned(),
            at: Duration::from_millis(950),
        }],
    }
}

#[test]
fn the_table_has_what_took_time_and_what_lay_between() {
    insta::assert_snapshot!(trace().table());
}

#[test]
fn the_trace_has_complete_events_in_rows_without_overlap() {
    let events: Value = serde_json::from_str(&trace().events()).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&events).unwrap());
}

#[test]
fn the_page_shows_names_as_they_are() {
    let page = trace().page();
    assert!(page.contains("<title>build &lt;r.example/app&gt;</title>"), "{page}");
    assert!(page.contains("<i class=\"container\" style=\"left:40.00%;width:50.00%\"></i>"), "{page}");
    assert!(page.contains("<span>300.0 ms</span><span>12.3 MB</span>"), "{page}");
    assert!(page.contains("<span>500.0 ms</span><span></span>"), "{page}");
    assert!(page.contains("export: Reusing layer 'a:b'"), "{page}");
    assert!(!page.contains("<script"), "{page}");
}

#[test]
fn programs_of_buildpacks_make_no_marks() {
    struct Nobody;
    impl Observer for Nobody {
        fn event(&self, _: Event) {}
    }
    let timings = Timings::new(&Nobody);
    for phase in ["detector", "builder", "exporter"] {
        let text = "Reusing layer 'a:b'".to_owned();
        timings.event(Event::Line { stream: Stream::Out, phase: Some(phase.to_owned()), text });
    }
    timings.event(Event::Took {
        work: Work::Job,
        name: "Pull".to_owned(),
        took: Duration::from_hours(1),
        bytes: None,
    });
    let trace = timings.trace("t");
    assert_eq!(trace.marks.iter().map(|mark| mark.phase.as_str()).collect::<Vec<_>>(), ["exporter"]);
    // A clock that is read late makes no beginning before the operation's own.
    assert_eq!(trace.spans[0].began, Duration::ZERO);
}

#[test]
fn a_flood_is_not_kept() {
    struct Nobody;
    impl Observer for Nobody {
        fn event(&self, _: Event) {}
    }
    let timings = Timings::new(&Nobody);
    for _ in 0..=MOST {
        let (phase, text) = (Some("creator".to_owned()), format!("Adding {}", "x".repeat(2 * MARK)));
        timings.event(Event::Line { stream: Stream::Out, phase, text });
        let (name, took) = ("a/b@1".to_owned(), Duration::ZERO);
        timings.event(Event::Took { work: Work::Buildpack, name, took, bytes: None });
    }
    let trace = timings.trace("build");
    assert_eq!((trace.spans.len(), trace.marks.len()), (MOST, MOST));
    assert_eq!(trace.marks[0].text.len(), MARK);
}
