package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

func waitReady(s settings) error { return waitFor(s, "/readyz") }

// waitFor polls a path of the API until it answers 200.
func waitFor(s settings, path string) error {
	authority, err := os.ReadFile(filepath.Join(s.dir, "ca.crt"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	client := http.Client{
		Timeout:   5 * time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true},
	}
	last := "no answer"
	for deadline := time.Now().Add(apiReady); time.Now().Before(deadline); time.Sleep(poll) {
		request, err := http.NewRequest(http.MethodGet, server(s)+path, nil)
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+token)
		response, err := client.Do(request)
		if err != nil {
			last = err.Error()
			continue
		}
		_ = response.Body.Close()
		if response.StatusCode == http.StatusOK {
			return nil
		}
		last = response.Status
	}
	return fmt.Errorf("%s: %s after %s", path, last, apiReady)
}
