-- A stand-in for Citus, as far as whoever keeps its table of nodes can tell. It distributes nothing.

CREATE SCHEMA citus;

CREATE TABLE citus.pg_dist_node (
    nodeid serial PRIMARY KEY,
    groupid int NOT NULL,
    nodename text NOT NULL,
    nodeport int NOT NULL,
    noderole text NOT NULL CHECK (noderole IN ('primary', 'secondary')),
    nodecluster name NOT NULL,
    -- The transaction that last gave a primary another address: the others do not know of it yet.
    changed_by xid8,
    UNIQUE (nodename, nodeport)
);
CREATE UNIQUE INDEX one_primary ON citus.pg_dist_node (groupid) WHERE noderole = 'primary';

CREATE TABLE citus.pg_dist_authinfo (nodeid int, rolename name, authinfo text);

ALTER TABLE citus.pg_dist_node SET SCHEMA pg_catalog;
ALTER TABLE citus.pg_dist_authinfo SET SCHEMA pg_catalog;

CREATE FUNCTION pg_catalog.citus_in_step() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_dist_node WHERE changed_by = pg_current_xact_id()) THEN
        RAISE EXCEPTION 'nodes cannot be added or removed in a transaction that changed a primary';
    END IF;
END $$;

CREATE FUNCTION pg_catalog.citus_set_coordinator_host(host text, port int, role text, cluster name)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO pg_catalog.pg_dist_node (groupid, nodename, nodeport, noderole, nodecluster)
    VALUES (0, host, port, role, cluster)
$$;

CREATE FUNCTION pg_catalog.citus_add_node(host text, port int, number int, role text, cluster name)
RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    id int;
BEGIN
    PERFORM citus_in_step();
    INSERT INTO pg_catalog.pg_dist_node (groupid, nodename, nodeport, noderole, nodecluster)
    VALUES (number, host, port, role, cluster) RETURNING nodeid INTO id;
    RETURN id;
END $$;

CREATE FUNCTION pg_catalog.citus_update_node(id int, host text, port int, force bool, cooldown_ms int)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE pg_catalog.pg_dist_node
    SET nodename = host, nodeport = port,
        changed_by = CASE noderole WHEN 'primary' THEN pg_current_xact_id() END
    WHERE nodeid = id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no node %', id;
    END IF;
END $$;

CREATE FUNCTION pg_catalog.citus_remove_node(host text, port int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM citus_in_step();
    DELETE FROM pg_catalog.pg_dist_node
    WHERE nodename = host AND nodeport = port AND noderole = 'secondary';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no secondary at %:%', host, port;
    END IF;
END $$;
