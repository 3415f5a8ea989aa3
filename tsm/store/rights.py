"""Who can do what to a store on PostgreSQL: nobody but its owner more than to read, and to call `tsm.append`.

Rights reach a role in many ways: granted to it, to everybody, to a role of which it is a member; by an attribute such
as CREATEROLE; by owning something around. All of them are looked at, for one is enough.
"""

import psycopg

# Whom the role can become, itself included, and who of them may do more than the rights above.
TOO_MIGHTY = """
SELECT r.rolname FROM pg_roles AS r WHERE pg_has_role(%(role)s, r.oid, 'MEMBER') AND (
  r.rolsuper OR r.rolcreaterole OR r.rolreplication
  OR r.rolname IN ('pg_write_server_files', 'pg_execute_server_program')
  OR r.oid IN (SELECT datdba FROM pg_database WHERE datname = current_database())
  OR r.oid IN (SELECT nspowner FROM pg_namespace WHERE nspname IN ('tsm', 'tsm_views'))
  OR r.oid IN (SELECT relowner FROM pg_class WHERE relnamespace = 'tsm'::regnamespace)
  OR r.oid IN (SELECT proowner FROM pg_proc WHERE pronamespace = 'tsm'::regnamespace)
  OR has_schema_privilege(r.oid, 'tsm', 'CREATE')
  OR EXISTS (SELECT FROM pg_class AS c WHERE c.relnamespace = 'tsm'::regnamespace AND c.relkind = 'r' AND (
    has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, TRUNCATE, TRIGGER')
    OR has_any_column_privilege(r.oid, c.oid, 'INSERT, UPDATE')
    OR c.relname <> 'command' AND has_table_privilege(r.oid, c.oid, 'DELETE'))))
ORDER BY r.rolname
"""

# Whoever else was granted what only the owner has, or what only the runtime role needs (an owner who asks does not know
# that role). A function without a list may be called by everybody.
TOO_MUCH = """
SELECT format('%%s may %%s %%s', CASE WHEN held.grantee = 0 THEN 'PUBLIC' ELSE held.grantee::regrole::text END,
              held.privilege, held.thing) AS fault
FROM (
  SELECT c.relname::text AS thing, a.grantee, a.privilege_type AS privilege, c.relowner AS owner
    FROM pg_class AS c, aclexplode(c.relacl) AS a WHERE c.relnamespace = 'tsm'::regnamespace
  UNION ALL
  SELECT c.relname || '.' || t.attname, a.grantee, a.privilege_type, c.relowner
    FROM pg_class AS c JOIN pg_attribute AS t ON t.attrelid = c.oid, aclexplode(t.attacl) AS a
    WHERE c.relnamespace = 'tsm'::regnamespace
  UNION ALL
  SELECT 'schema ' || n.nspname, a.grantee, a.privilege_type, n.nspowner
    FROM pg_namespace AS n, aclexplode(n.nspacl) AS a WHERE n.nspname = 'tsm'
  UNION ALL
  SELECT 'function ' || p.proname, a.grantee, a.privilege_type, p.proowner
    FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
    WHERE p.pronamespace = 'tsm'::regnamespace
) AS held
WHERE held.grantee <> held.owner AND (held.grantee = 0 OR held.privilege NOT IN ('SELECT', 'USAGE') AND NOT (
  (held.privilege = 'EXECUTE' OR held.thing = 'command' AND held.privilege = 'DELETE')
  AND (%(is_owner)s OR held.grantee = (SELECT oid FROM pg_roles WHERE rolname = %(role)s))))
ORDER BY fault
"""

OWNERS = """
SELECT DISTINCT o.rolname::text, o.rolsuper FROM pg_roles AS o WHERE o.oid IN (
  SELECT nspowner FROM pg_namespace WHERE nspname = 'tsm'
  UNION SELECT relowner FROM pg_class WHERE relnamespace = 'tsm'::regnamespace
  UNION SELECT proowner FROM pg_proc WHERE pronamespace = 'tsm'::regnamespace)
"""


def rights_faults(connection: psycopg.Connection, role: str | None = None) -> list[str]:
    """Who can do more than he should, in words."""
    owners = connection.execute(OWNERS).fetchall()
    faults = [f"the owner {name} is a superuser: tsm.append would run as one" for name, mighty in owners if mighty]
    if len(owners) > 1:
        faults.append(f"there are several owners: {', '.join(sorted(name for name, _ in owners))}")
    if role is None:
        [role] = connection.execute("SELECT current_user").fetchone() or [""]
    is_owner = role in {name for name, _ in owners}
    if not is_owner:
        mighty_roles = connection.execute(TOO_MIGHTY, {"role": role}).fetchall()
        faults += [f"the runtime role {role} may do too much as {name}" for (name,) in mighty_roles]
    return faults + [fault for (fault,) in connection.execute(TOO_MUCH, {"role": role, "is_owner": is_owner})]
