package main

import (
	"io"
	"net"
	"sync"
)

// proxy passes TCP connections of this process on to the server, until they
// are cut. While it is closed nobody listens at its port: an informer that is
// refused asks for the same watch again, where one that is cut off lists anew.
type proxy struct {
	// Where it listens, and where the server does.
	address, server string
	lock            sync.Mutex
	listener        net.Listener
	conns           map[net.Conn]struct{}
}

func newProxy(server string) (*proxy, error) {
	p := &proxy{address: "127.0.0.1:0", server: server, conns: map[net.Conn]struct{}{}}
	return p, p.open()
}

// open listens, the second time at the same port.
func (p *proxy) open() error {
	listener, err := net.Listen("tcp", p.address)
	if err != nil {
		return err
	}
	p.lock.Lock()
	p.listener, p.address = listener, listener.Addr().String()
	p.lock.Unlock()
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go p.pass(near)
		}
	}()
	return nil
}

// close ends all connections and refuses new ones.
func (p *proxy) close() {
	p.lock.Lock()
	_ = p.listener.Close()
	p.lock.Unlock()
	p.cut()
}

// cut ends all connections.
func (p *proxy) cut() {
	p.lock.Lock()
	defer p.lock.Unlock()
	for connection := range p.conns {
		_ = connection.Close()
	}
}

func (p *proxy) pass(near net.Conn) {
	defer near.Close()
	far, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer far.Close()
	p.lock.Lock()
	p.conns[near], p.conns[far] = struct{}{}, struct{}{}
	p.lock.Unlock()
	done := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			done <- struct{}{}
		}()
	}
	<-done
	p.lock.Lock()
	delete(p.conns, near)
	delete(p.conns, far)
	p.lock.Unlock()
}
