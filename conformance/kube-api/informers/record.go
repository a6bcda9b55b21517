package main

import (
	"bytes"
	"io"
	"net/http"
	"net/url"
	"sync"
)

// record writes down what the informers ask, and how often they are told that
// a revision is gone.
type record struct {
	lock sync.Mutex
	seen []asked
	gone int
}

// asked is a list or a watch.
type asked struct {
	path  string
	query url.Values
}

func (a asked) isWatch() bool { return a.query.Get("watch") != "" }

func (r *record) wrap(next http.RoundTripper) http.RoundTripper { return &recorder{r, next} }

// of returns what was asked of a path.
func (r *record) of(path string) []asked {
	r.lock.Lock()
	defer r.lock.Unlock()
	var found []asked
	for _, one := range r.seen {
		if one.path == path {
			found = append(found, one)
		}
	}
	return found
}

func (r *record) initialEvents() int {
	r.lock.Lock()
	defer r.lock.Unlock()
	count := 0
	for _, one := range r.seen {
		if one.query.Get("sendInitialEvents") == "true" {
			count++
		}
	}
	return count
}

func (r *record) goneCount() int {
	r.lock.Lock()
	defer r.lock.Unlock()
	return r.gone
}

func (r *record) addGone() {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.gone++
}

type recorder struct {
	record *record
	next   http.RoundTripper
}

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	r.record.lock.Lock()
	r.record.seen = append(r.record.seen, asked{request.URL.Path, request.URL.Query()})
	r.record.lock.Unlock()
	response, err := r.next.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode == http.StatusGone {
		r.record.addGone()
	} else if request.URL.Query().Get("watch") != "" {
		response.Body = &stream{ReadCloser: response.Body, record: r.record}
	}
	return response, nil
}

// In a stream the same is said by an event.
var goneEvent = []byte(`"code":410`)

// stream is the body of a watch.
type stream struct {
	io.ReadCloser
	record *record
	// The end of what was read before: the text may be cut anywhere.
	tail []byte
}

func (s *stream) Read(into []byte) (int, error) {
	count, err := s.ReadCloser.Read(into)
	text := append(s.tail, into[:count]...)
	if bytes.Contains(text, goneEvent) {
		s.record.addGone()
		text = nil
	}
	keep := min(len(text), len(goneEvent)-1)
	s.tail = append([]byte(nil), text[len(text)-keep:]...)
	return count, err
}
